-- `pgsaga show`: returns the steps of saga $1 that wait for a person. Index: stuck_pkey.
select step, position, op, attempt, reason, at, greatest(least((date_part('epoch', clock_timestamp()) - date_part('epoch', at)) * 1e6, 9e18), -9e18)::bigint as since_us
from pgsaga.stuck where saga_id = $1 order by at, position
