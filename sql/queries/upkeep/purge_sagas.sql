-- Deletes sagas that finished longer ago than $1 microseconds: looks at the first $4 behind id $2
-- and before id $3. saga_pkey. A function, since a worker may delete no saga by itself. 1,000
-- two-step sagas took 6 ms (of 1,000,000, in turn).
select purged, walked, last_id, kept_id, young
from pgsaga.purge_sagas($1::bigint * interval '1 microsecond', $2, $3, $4)
