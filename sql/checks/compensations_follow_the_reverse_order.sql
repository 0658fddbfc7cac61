-- A step was compensated only after every later step that may have taken effect, and has something to undo, was undone.
with may_have_taken_effect as (
  select saga_id, step from pgsaga.history
  where op = 'action' group by saga_id, step
  having bool_or(outcome in ('success', 'unknown')) or (array_agg(outcome order by seq desc) filter (where outcome <> 'unsent'))[1] = 'ongoing'
)
select s.gid, 'step ' || h.step || ' was compensated (seq ' || h.seq || ') before step ' || e.step || ' was undone' as found
from pgsaga.history h
join pgsaga.saga s on s.id = h.saga_id
join may_have_taken_effect e on e.saga_id = h.saga_id and e.step > h.step
where h.op = 'compensate' and s.steps -> (e.step - 1) ? 'compensate'
  and not exists (
    select from pgsaga.history u
    where u.saga_id = h.saga_id and u.step = e.step and u.op = 'compensate' and u.outcome = 'success' and u.seq < h.seq)
