-- Returns those of the tasks $2 of worker $1 that have an interrupt, so that the worker asks their
-- handlers to end. Index: task_pkey.
select t.id
from unnest($2::bigint[]) as i (task_id)
cross join lateral (
  select id from pgsaga.task where id = i.task_id and worker = $1 and interrupt is not null offset 0
) t
