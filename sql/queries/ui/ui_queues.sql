-- `pgsaga ui`: the queues and their classes, or those of the queue $1, with who paused them; $2 at
-- most. Reads two tables that have a row a queue and a row a class.
select l.queue, l.priority, q.paused_at, q.paused_by
from pgsaga.queue q join pgsaga.lane l on l.queue = q.name
where $1::text is null or q.name = $1
order by l.queue, l.priority
limit $2
