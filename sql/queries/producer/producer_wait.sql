-- Which of these sagas have ended or are stuck, and which are still on their way: one look for all
-- waiters of a process, by the unique index saga_gid_key. The lateral keeps it an index loop
-- whatever the statistics say.
-- $1 gids
select s.gid, s.status, s.reason, s.result::text, s.status in ('succeeded', 'failed', 'stuck') as ended
from unnest($1::text[]) as awaited (gid)
  cross join lateral (select gid, status, reason, result from pgsaga.saga where saga.gid = awaited.gid offset 0) s
