-- A step was compensated only after every step that waits for it, may have taken effect, and has something to undo, was
-- undone (or a person had it count as undone).
with recursive may_have_taken_effect as (
  select saga_id, step from pgsaga.history
  where op = 'action' group by saga_id, step
  having bool_or(outcome in ('success', 'unknown')) or (array_agg(outcome order by seq desc) filter (where outcome <> 'unsent'))[1] = 'ongoing'
), partial as materialized (
  select o.saga_id, o.step, o.waits_for from pgsaga.step_order o join pgsaga.saga s on s.id = o.saga_id where s.progress is not null
), waits as (
  select saga_id, step, waits_for from partial
  union
  select w.saga_id, w.step, o.waits_for from waits w join partial o on o.saga_id = w.saga_id and o.step = w.waits_for
)
select s.gid, 'step ' || h.step || ' was compensated (seq ' || h.seq || ') before step ' || e.step || ' was undone' as found
from pgsaga.history h
join pgsaga.saga s on s.id = h.saga_id
join may_have_taken_effect e on e.saga_id = h.saga_id and e.step <> h.step
  and case when s.progress is null then e.step > h.step
      else exists (select from waits w where w.saga_id = s.id and w.step = e.step and w.waits_for = h.step) end
where h.op = 'compensate' and s.steps -> (e.step - 1) ? 'compensate'
  and not exists (
    select from pgsaga.history u
    where u.saga_id = h.saga_id and u.step = e.step and u.seq < h.seq
      and (u.op = 'compensate' and u.outcome = 'success' or u.decision = 'skip'))
