-- `pgsaga ui`: the workers that have a row, the living first, $1 at most. Times are for people: nobody is declared dead by them.
select id, host, pid, version, dead, retired, lease_ms, started_at,
  (extract(epoch from clock_timestamp() - started_at) * 1000000)::bigint as age_us,
  (extract(epoch from clock_timestamp() - seen_at) * 1000000)::bigint as seen_us
from pgsaga.worker
order by dead or retired, started_at desc, id
limit $1
