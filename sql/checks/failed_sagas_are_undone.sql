-- In a failed saga everything that may have taken effect, and has something to undo, is
-- compensated, unless a person ended the saga or had the step count as undone.
select s.gid, 'step ' || e.step || ' may have taken effect and was not compensated' as found
from pgsaga.saga s
join (
  select saga_id, step from pgsaga.history
  where op = 'action' group by saga_id, step
  having bool_or(outcome in ('success', 'unknown')) or (array_agg(outcome order by seq desc) filter (where outcome <> 'unsent'))[1] = 'ongoing'
) e on e.saga_id = s.id
where s.status = 'failed' and s.steps -> (e.step - 1) ? 'compensate'
  and not exists (
    select from pgsaga.history u
    where u.saga_id = s.id
      and (u.step = e.step and u.op = 'compensate' and u.outcome = 'success'
           or u.step = e.step and u.decision = 'skip' or u.decision in ('force', 'resolve')))
