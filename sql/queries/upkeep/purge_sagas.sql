-- Deletes sagas that finished more than $1 microseconds ago. Examines the first $4 sagas after id
-- $2 and before id $3. Calls a function because a worker has no right to delete sagas. Index:
-- saga_pkey. 1,000 two-step sagas took 6 ms in a purge of 1,000,000.
select purged, walked, last_id, kept_id, young, refused, refused_gid, refused_why
from pgsaga.purge_sagas($1::bigint * interval '1 microsecond', $2, $3, $4)
