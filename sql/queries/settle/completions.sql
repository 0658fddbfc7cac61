-- Returns what was reported of the ops of the tasks $1, for tasks that bear a completion: the
-- comment and the answer. Indexes: task_pkey, and the primary key of one partition of the history.
select t.id, h.message, h.answer::text as answer
from unnest($1::bigint[]) as i(task_id)
cross join lateral (
  select id, saga_id, step, op from pgsaga.task where id = i.task_id and completion is not null offset 0
) t
cross join lateral (
  select message, answer from pgsaga.history
  where saga_id = t.saga_id and kind = 'completion' and step = t.step and op = t.op and outcome <> 'ongoing'
  order by seq desc limit 1
) h
