-- Returns the number of tasks in each queue, and the age in seconds of its oldest due task. Reads
-- all tasks.
select queue, sum(due)::bigint as due, sum(waiting)::bigint as waiting, sum(running)::bigint as running,
  date_part('epoch', max(oldest_due_age)) as oldest_due
from pgsaga.queues
group by queue
