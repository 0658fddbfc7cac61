-- A stuck saga is listed, its reason starts with the step's name, and nothing else is listed.
select coalesce(s.gid, 'saga id ' || k.saga_id) as gid,
  'status ' || coalesce(s.status, 'absent') || ', listed as stuck at ' || coalesce(k.step, 'nothing') || ', reason ' || coalesce(s.reason, 'none') as found
from (select * from pgsaga.saga where status = 'stuck') s full join pgsaga.stuck k on k.saga_id = s.id
where s.id is null or k.saga_id is null or not starts_with(s.reason, k.step)
