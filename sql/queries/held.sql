-- What the database says worker $1 holds (reconcile, RACES 2). Those that it does not know are looked at again with still_held. Claimed rows were due, so the ranges of task_lane_run_at
-- leave out everything that waits for the future.
select t.id, t.epoch
from pgsaga.lane l
cross join lateral (
  select id, epoch from pgsaga.task where lane = l.id and run_at <= (select clock_timestamp()) and worker = $1 offset 0
) t
