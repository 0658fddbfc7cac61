-- Returns the number of unfinished sagas with their ages in seconds, and the number of workers that
-- sent a heartbeat within their lease. Reads all tasks.
select open, stuck, date_part('epoch', oldest_open_age) as oldest_open, date_part('epoch', longest_stuck_age) as longest_stuck,
  date_part('epoch', longest_retry_age) as longest_retry,
  (select count(*) from pgsaga.worker_stats where alive) as workers
from pgsaga.saga_stats
