-- The history, folded, gives the queued task: its op is the next that the history allows, and its try is the next number.
select s.gid, 'task ' || t.id || ' is try ' || t.attempt || ' of ' || t.op || ' of step ' || t.step
  || ', the history has ' || coalesce(h.tries, 0) || ' tries of it'
  || case when p.ready then '' else ' and the action of the step before it has not succeeded' end as found
from pgsaga.task t
join pgsaga.saga s on s.id = t.saga_id
cross join lateral (
  select count(*) as tries from pgsaga.history h where h.saga_id = t.saga_id and h.step = t.step and h.op = t.op and h.kind = 'attempt'
) h
cross join lateral (
  select t.op = 'compensate' or t.step = 1 or exists (
    select from pgsaga.history h
    where h.saga_id = t.saga_id and h.step = t.step - 1 and h.op = 'action' and h.outcome = 'success') as ready
) p
where t.attempt <> h.tries + 1 or not p.ready
