-- A sequential saga has at most one task, a parallel one at most one a step.
select coalesce(s.gid, 'saga id ' || t.saga_id) as gid,
  t.tasks || ' tasks: ' || t.ids || coalesce(' of step ' || t.step, '') as found
from (
  select k.saga_id, case when s.progress is not null then k.step end as step, count(*) as tasks, string_agg(k.id::text, ', ' order by k.id) as ids
  from pgsaga.task k left join pgsaga.saga s on s.id = k.saga_id
  group by 1, 2 having count(*) > 1
) t
left join pgsaga.saga s on s.id = t.saga_id
