-- `pgsaga ui`: returns up to $2 queues with their classes and who paused them; only the queue $1 if
-- it is not null. Reads two tables, with a row for each queue and a row for each class.
select l.queue, l.priority, q.paused_at, q.paused_by
from (select distinct queue, priority from pgsaga.lane where $1::text is null or queue = $1) l
left join pgsaga.paused_queue q on q.name = l.queue
order by l.queue, l.priority
limit $2
