-- `pgsaga ui`: returns up to $2 queues with their classes and who paused them; only the queue $1 if
-- it is not null. Reads two tables, with a row for each queue and a row for each class.
select l.queue, l.priority, q.paused_at, q.paused_by
from pgsaga.queue q join pgsaga.lane l on l.queue = q.name
where $1::text is null or q.name = $1
order by l.queue, l.priority
limit $2
