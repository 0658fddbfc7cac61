-- Returns what worker $1 compares with its memory (reconcile). First one row for each lane, whose
-- task columns are null: `lowest` is the first unclaimed `run_at` that is due, and corrects a
-- watermark that has passed it. Then one row for each task that $1 holds. The worker reads a task
-- that it does not know once more with still_held before it releases the task (docs/races.md, R2).
-- Last, tasks that are claimed by workers without a row: only an edit by hand leaves such a task,
-- and no rescue would find it. Claimed tasks were due, so the ranges of task_lane_run_at leave out
-- everything that waits for the future.
select l.id as lane, (
    select greatest(run_at, 'epoch') from pgsaga.task
    where lane = l.id and run_at <= (select clock_timestamp()) and worker is null order by run_at limit 1
  ) as lowest, null::bigint as id, null::int as epoch, null::bigint as worker
from pgsaga.lane l
union all
select null, null, t.id, t.epoch, t.worker
from pgsaga.lane l
cross join lateral (
  select id, epoch, worker from pgsaga.task
  where lane = l.id and run_at <= (select clock_timestamp())
    and (worker = $1 or worker <> all (array(select id from pgsaga.worker))) offset 0
) t
