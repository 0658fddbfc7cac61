-- What the database says worker $1 holds (reconcile, RACES 2), and what is claimed by workers that are not registered: only
-- somebody who changed the row by hand leaves a task so, and nobody else would ever rescue it. Those of $1 that it does not know are looked at again with still_held. Claimed rows were due, so the ranges of task_lane_run_at
-- leave out everything that waits for the future.
select t.id, t.epoch, t.worker
from pgsaga.lane l
cross join lateral (
  select id, epoch, worker from pgsaga.task
  where lane = l.id and run_at <= (select clock_timestamp())
    and (worker = $1 or worker <> all (array(select id from pgsaga.worker))) offset 0
) t
