-- Returns which of the tasks $2 worker $1 still holds, with epoch, interrupt and completion. After
-- a settle that did not apply, the worker learns whether another session held a lock (settle
-- again), the task was interrupted or completed (plan again) or the task is gone. Index: task_pkey.
select t.id, t.epoch, t.interrupt, t.completion, t.step, t.op, t.attempt
from unnest($2::bigint[]) as i(task_id)
-- control: still-held-loop
cross join lateral (select id, epoch, interrupt, completion, step, op, attempt from pgsaga.task where id = i.task_id and worker = $1 offset 0) t
