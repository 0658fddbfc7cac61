-- Whether each action of saga $1 that may be under way has a compensation.
select not exists (
  select from pgsaga.task t
  where t.saga_id = s.id and t.op = 'action' and s.steps -> (t.step - 1) ->> 'compensate' is null)
from pgsaga.saga s where s.gid = $1
