-- `pgsaga show`: what of saga $1 waits for a person. Index: stuck_pkey.
select step, position, op, attempt, reason, at, (extract(epoch from clock_timestamp() - at) * 1000000)::bigint as since_us
from pgsaga.stuck where saga_id = $1 order by at, position
