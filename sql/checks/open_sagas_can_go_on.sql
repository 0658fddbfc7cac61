-- Every unfinished saga has a task whose claim is free or of a known worker, or is stuck.
select s.gid, 'status ' || s.status || ', no task'
  || coalesce(' but one of worker ' || (select min(t.worker) from pgsaga.task t where t.saga_id = s.id) || ', which is not registered', '') as found
from pgsaga.saga s
where s.finished_at is null and s.status <> 'stuck'
  and not exists (
    select from pgsaga.task t
    where t.saga_id = s.id and (t.worker is null or exists (select from pgsaga.worker w where w.id = t.worker)))
