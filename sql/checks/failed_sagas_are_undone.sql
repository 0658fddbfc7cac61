-- In a failed saga everything that may have taken effect, and has something to undo, is
-- compensated, and with compensate_failed also what was refused, unless a person ended the saga or
-- had the step count as undone.
select s.gid, 'step ' || e.step || case when e.may then ' may have taken effect' else ' was refused' end || ' and was not compensated' as found
from pgsaga.saga s
join (
  select saga_id, step, bool_or(o.effect in ('done', 'maybe')) or (array_agg(o.effect order by seq desc) filter (where o.overrides))[1] = 'pending' as may,
    bool_or(h.kind = 'attempt' and h.outcome = 'failure') as refused
  from pgsaga.history h left join pgsaga.outcome o using (outcome)
  where op = 'action' group by saga_id, step
) e on e.saga_id = s.id
where s.status = 'failed' and (e.may or e.refused and s.compensate_failed) and s.steps -> (e.step - 1) ? 'compensate'
  and not exists (
    select from pgsaga.history u
    where u.saga_id = s.id
      and (u.step = e.step and u.op = 'compensate' and u.outcome = 'success'
           or u.step = e.step and u.decision = 'skip' or u.decision in ('force', 'resolve')))
