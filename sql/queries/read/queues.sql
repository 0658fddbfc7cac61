-- `pgsaga queues`: returns one row for each queue and class, with the living workers that serve it.
-- Reads all tasks.
select queue, priority, paused_at, paused_by, due, waiting, running, workers,
  (extract(epoch from oldest_due_age) * 1000000)::bigint as oldest_due_us
from pgsaga.queues order by queue, priority
