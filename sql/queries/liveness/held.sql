-- What worker $1 compares with what it knows (reconcile). One row a lane, whose task columns are
-- null: `lowest` is the first unclaimed `run_at` that is due, by which a watermark that has
-- passed it is corrected. Then one row a task: what $1 holds, of which it reads what it does not
-- know once more with still_held before it hands it back (docs/races.md, R2); and what is claimed
-- by workers that have no row. Only somebody who changed a row by hand leaves a task so, and nobody
-- else would ever rescue it. Claimed rows were due, so the ranges of task_lane_run_at leave out
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
