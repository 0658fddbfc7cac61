-- A step was compensated only after every step that waits for it, may have taken effect, and has
-- something to undo, was undone (or a person had it count as undone).
with recursive can_be_undone as materialized (
  select s.id as saga_id, position as step, s.progress is null as sequential
  from pgsaga.saga s cross join lateral jsonb_array_elements(case when jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end) with ordinality as e (body, position)
  where body ? 'compensate'
), may_have_taken_effect as materialized (
  select h.saga_id, h.step, c.sequential
  from pgsaga.history h join can_be_undone c on c.saga_id = h.saga_id and c.step = h.step
  left join pgsaga.outcome o using (outcome)
  where h.op = 'action'
  group by h.saga_id, h.step, c.sequential
  having bool_or(o.effect in ('done', 'maybe'))
    or (array_agg(o.effect order by h.seq desc) filter (where o.overrides))[1] = 'pending'
), direct as materialized (
  select o.saga_id, o.step, o.waits_for from pgsaga.step_order o join pgsaga.saga s on s.id = o.saga_id where s.progress is not null
), waits as (
  select saga_id, step, waits_for from direct
  union
  select w.saga_id, w.step, d.waits_for from waits w join direct d on d.saga_id = w.saga_id and d.step = w.waits_for
), undone_too_early as (
  select h.saga_id, h.step, h.seq, e.step as other
  from pgsaga.history h
  join may_have_taken_effect e on e.saga_id = h.saga_id and e.sequential and e.step > h.step
  where h.op = 'compensate'
  union all
  select h.saga_id, h.step, h.seq, e.step
  from pgsaga.history h
  join waits w on w.saga_id = h.saga_id and w.waits_for = h.step
  join may_have_taken_effect e on e.saga_id = w.saga_id and e.step = w.step
  where h.op = 'compensate'
)
select s.gid, 'step ' || h.step || ' was compensated (seq ' || h.seq || ') before step ' || h.other || ' was undone' as found
from undone_too_early h
join pgsaga.saga s on s.id = h.saga_id
where not exists (
  select from pgsaga.history u
  where u.saga_id = h.saga_id and u.step = h.other and u.seq < h.seq
    and (u.op = 'compensate' and u.outcome = 'success' or u.decision = 'skip'))
