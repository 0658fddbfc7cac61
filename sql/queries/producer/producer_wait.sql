-- Returns the status of each of the sagas $1, and whether it has ended or is stuck. One statement
-- serves all waiters of a process. The lateral keeps the plan an index loop whatever the statistics
-- say. Index: saga_gid_key.
select s.gid, s.status, s.reason, s.result::text, s.status in ('succeeded', 'failed', 'stuck') as ended
from unnest($1::text[]) as awaited (gid)
  cross join lateral (select gid, status, reason, result from pgsaga.saga where saga.gid = awaited.gid offset 0) s
