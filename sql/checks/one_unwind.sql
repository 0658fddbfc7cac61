-- Once a saga began to compensate it runs no action again.
select s.gid, 'action of step ' || h.step || ' was tried (seq ' || h.seq || ') after the unwind had begun (seq ' || u.began || ')' as found
from pgsaga.history h
join pgsaga.saga s on s.id = h.saga_id
join (select saga_id, min(seq) as began from pgsaga.history where kind = 'attempt' and op = 'compensate' group by saga_id) u on u.saga_id = h.saga_id
where h.kind = 'attempt' and h.op = 'action' and h.seq > u.began
