-- `pgsaga show`: the saga $1. Index: saga_gid_key.
select id, gid, status, reason, format, steps::text as steps, headers::text as headers, labels::text as labels,
  retry_interval::text as retry_interval, retry_limit, request_timeout::text as request_timeout, created_at, finished_at
from pgsaga.saga where gid = $1
