-- A sequential saga has at most one task.
select coalesce(s.gid, 'saga id ' || t.saga_id) as gid, t.tasks || ' tasks: ' || t.ids as found
from (
  select saga_id, count(*) as tasks, string_agg(id::text, ', ' order by id) as ids
  from pgsaga.task group by saga_id having count(*) > 1
) t
left join pgsaga.saga s on s.id = t.saga_id
