-- What the database says worker $1 holds (reconcile, RACES 2). Claimed rows were due, so the range of task_run_at
-- leaves out everything that waits for the future.
select id, epoch from pgsaga.task where run_at <= (select clock_timestamp()) and worker = $1
