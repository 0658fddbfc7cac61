-- A stuck saga has a stuck step that its reason starts with, and only stuck sagas have stuck steps.
select coalesce(s.gid, 'saga id ' || k.saga_id) as gid,
  'status ' || coalesce(s.status, 'absent') || ', stuck steps: ' || coalesce(k.steps, 'none') || ', reason ' || coalesce(s.reason, 'none') as found
from (select * from pgsaga.saga where status = 'stuck') s
full join (
  select saga_id, string_agg(step, ', ' order by position) as steps, array_agg(step || ':') as names from pgsaga.stuck group by saga_id
) k on k.saga_id = s.id
where s.id is null or k.saga_id is null
  or not exists (select from unnest(k.names) as name where starts_with(s.reason, name))
