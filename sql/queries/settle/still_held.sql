-- Of the tasks $2, which does worker $1 still hold, at which epoch, and with which interrupt? Tells
-- a settle that met another's lock (try again) or an interrupt (plan anew) from one whose task is
-- gone. Index: task_pkey.
select t.id, t.epoch, t.interrupt, t.step, t.op, t.attempt
from unnest($2::bigint[]) as i(task_id)
-- control: still-held-loop
cross join lateral (select id, epoch, interrupt, step, op, attempt from pgsaga.task where id = i.task_id and worker = $1 offset 0) t
