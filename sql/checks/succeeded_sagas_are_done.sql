-- In a succeeded saga every step's action succeeded (or a person had it count as done), and nothing
-- was compensated, unless a person ended the saga.
select s.gid, 'succeeded, with ' || coalesce(h.done, 0) || ' of ' || steps.all || ' actions done and '
  || coalesce(h.undone, 0) || ' compensations tried' as found
from pgsaga.saga s
cross join lateral (select jsonb_array_length(case when jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end) as all) steps
left join (
  select saga_id, count(distinct step) filter (where kind = 'attempt' and op = 'action' and outcome = 'success' or decision = 'skip') as done,
    count(*) filter (where kind = 'attempt' and op = 'compensate') as undone, coalesce(bool_or(decision = 'resolve'), false) as resolved
  from pgsaga.history group by saga_id
) h on h.saga_id = s.id
where s.status = 'succeeded' and h.resolved is not true
  and (coalesce(h.done, 0) <> steps.all or coalesce(h.undone, 0) <> 0)
