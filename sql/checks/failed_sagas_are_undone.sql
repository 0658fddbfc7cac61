-- In a failed saga everything that may have taken effect, and has something to undo, is
-- compensated, unless a person ended the saga or had the step count as undone.
select s.gid, 'step ' || e.step || ' may have taken effect and was not compensated' as found
from pgsaga.saga s
join (
  select saga_id, step from pgsaga.history left join pgsaga.outcome o using (outcome)
  where op = 'action' group by saga_id, step
  having bool_or(o.effect in ('done', 'maybe')) or (array_agg(o.effect order by seq desc) filter (where o.overrides))[1] = 'pending'
) e on e.saga_id = s.id
where s.status = 'failed' and s.steps -> (e.step - 1) ? 'compensate'
  and not exists (
    select from pgsaga.history u
    where u.saga_id = s.id
      and (u.step = e.step and u.op = 'compensate' and u.outcome = 'success'
           or u.step = e.step and u.decision = 'skip' or u.decision in ('force', 'resolve')))
