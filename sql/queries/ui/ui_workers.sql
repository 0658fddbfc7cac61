-- `pgsaga ui`: returns up to $1 workers that have a row, the living first. The times are for people
-- only: no worker is declared dead by them.
select id, host, pid, version, dead, retired, lease_ms, started_at,
  greatest(least((date_part('epoch', clock_timestamp()) - date_part('epoch', started_at)) * 1e6, 9e18), -9e18)::bigint as age_us,
  greatest(least((date_part('epoch', clock_timestamp()) - date_part('epoch', seen_at)) * 1e6, 9e18), -9e18)::bigint as seen_us
from pgsaga.worker
order by dead or retired, started_at desc, id
limit $1
