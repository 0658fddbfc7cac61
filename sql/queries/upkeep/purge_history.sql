-- Deletes history whose saga is gone: of partition $2, up to saga $5, looks at the first $6 rows
-- behind ($3, $4). `walked` is null where the partition is soon dropped instead, by the age $1 in
-- microseconds. The partition's primary key; 2,000 rows took 6 ms.
select purged, walked, walked_id, walked_seq, kept_id
from pgsaga.purge_history($1::bigint * interval '1 microsecond', $2, $3, $4, $5, $6)
