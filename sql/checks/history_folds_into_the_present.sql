-- The history, folded, gives the queued tasks: each is the next try of its op, remembers what the
-- earlier ones came to, and an action is queued only where every step that it waits for has
-- succeeded. (A person's retry gives an op its limit anew.)
select s.gid, 'task ' || t.id || ' is try ' || t.attempt || ' of ' || t.op || ' of step ' || t.step
  || ' (counted ' || t.counted || ', unknown before ' || t.unknown_before || '); the history has ' || h.tries
  || ' tries of it (counted ' || h.counted || ', unknown ' || h.unknown || ')'
  || case when p.ready then '' else ', and a step that it waits for has not succeeded' end as found
from pgsaga.task t
join pgsaga.saga s on s.id = t.saga_id
cross join lateral (
  select count(*) as tries, count(*) filter (where o.counted) as counted,
    -- A success that a completion contradicts leaves the op in doubt.
    coalesce(bool_or(o.effect = 'maybe'), false) or coalesce(bool_or(h.outcome = 'success'), false) as unknown
  from pgsaga.history h left join pgsaga.outcome o using (outcome)
  where h.saga_id = t.saga_id and h.step = t.step and h.op = t.op and h.kind = 'attempt'
) h
cross join lateral (
  select t.op = 'compensate' or not exists (
    select from pgsaga.step_order o
    where o.saga_id = t.saga_id and o.step = t.step and not exists (
      select from pgsaga.history h
      where h.saga_id = t.saga_id and h.step = o.waits_for and (h.kind = 'attempt' and h.op = 'action' and h.outcome = 'success' or h.decision = 'skip'))) as ready
) p
where t.attempt <> h.tries + 1 or t.unknown_before <> h.unknown or not p.ready
  or t.counted <> h.counted and not exists (
    select from pgsaga.history d where d.saga_id = t.saga_id and d.decision is not null)
