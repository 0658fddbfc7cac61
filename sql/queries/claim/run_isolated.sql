-- Marks a task that lost several workers as isolated. Only deaths from then on count towards the
-- limit that makes its saga stuck (docs/races.md, R20).
--   $1 worker  $2 task  $3 epoch
-- Returns the new epoch. Locks the worker's row, so that the worker cannot move the task during a
-- rescue.
with me as materialized (
  -- control: isolate-worker
  select id from pgsaga.worker where id = $1 and not dead for key share
)
-- control: isolate-epoch
update pgsaga.task set isolated = true, epoch = epoch + (epoch < 2147483647)::int
where id = $2 and worker = $1 and epoch = $3 and exists (select from me)
returning epoch
