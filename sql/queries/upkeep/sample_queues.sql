-- Returns the number of tasks in each queue, the age in seconds of its oldest due task, and how
-- many of the due tasks no living worker serves. A paused queue is served by nobody on purpose.
-- Reads all tasks.
select queue, sum(due)::bigint as due, sum(waiting)::bigint as waiting, sum(running)::bigint as running, sum(awaiting)::bigint as awaiting,
  date_part('epoch', max(oldest_due_age)) as oldest_due,
  sum(unserved)::bigint as unserved
from pgsaga.queues
group by queue
