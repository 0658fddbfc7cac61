-- The history, folded, gives the queued task: it is the next try of its op, it remembers what the earlier ones came to,
-- and an action is queued only where the step before it has succeeded.
select s.gid, 'task ' || t.id || ' is try ' || t.attempt || ' of ' || t.op || ' of step ' || t.step
  || ' (counted ' || t.counted || ', unknown before ' || t.unknown_before || '); the history has ' || h.tries
  || ' tries of it (counted ' || h.counted || ', unknown ' || h.unknown || ')'
  || case when p.ready then '' else ', and the action of the step before it has not succeeded' end as found
from pgsaga.task t
join pgsaga.saga s on s.id = t.saga_id
cross join lateral (
  select count(*) as tries, count(*) filter (where outcome <> 'ongoing') as counted,
    coalesce(bool_or(outcome = 'unknown'), false) as unknown
  from pgsaga.history h
  where h.saga_id = t.saga_id and h.step = t.step and h.op = t.op and h.kind = 'attempt'
) h
cross join lateral (
  select t.op = 'compensate' or t.step = 1 or exists (
    select from pgsaga.history h
    where h.saga_id = t.saga_id and h.step = t.step - 1 and h.op = 'action' and h.outcome = 'success') as ready
) p
where t.attempt <> h.tries + 1 or t.counted <> h.counted or t.unknown_before <> h.unknown or not p.ready
