-- No task belongs to a finished or stuck saga, or to none; and its op fits the saga's status.
select coalesce(s.gid, 'saga id ' || t.saga_id) as gid,
  'task ' || t.id || ' (' || t.op || ' of step ' || t.step || ') of a saga that is ' || coalesce(s.status, 'absent') as found
from pgsaga.task t left join pgsaga.saga s on s.id = t.saga_id
where s.id is null or s.status <> case t.op when 'action' then 'submitted' else 'aborting' end
