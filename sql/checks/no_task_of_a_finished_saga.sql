-- No task belongs to a finished saga, or to none; a sequential saga that is stuck has none either;
-- and its op fits the saga's status. An action whose saga unwinds bears an interrupt, so it is
-- never called again.
select coalesce(s.gid, 'saga id ' || t.saga_id) as gid,
  'task ' || t.id || ' (' || t.op || ' of step ' || t.step || ') of a saga that is ' || coalesce(s.status, 'absent') as found
from pgsaga.task t left join pgsaga.saga s on s.id = t.saga_id
where s.id is null or s.finished_at is not null
  or s.status = 'stuck' and s.progress is null
  or s.status = 'submitted' and t.op = 'compensate' and s.ending is null
  or s.status = 'aborting' and t.op = 'action' and t.interrupt is null and s.progress is null
