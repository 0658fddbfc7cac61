-- Moves due tasks of participants that this worker does not serve into the lanes of these
-- participants, so that no claim has to walk over them.
--   $1 participants
--   $2 lanes to move from and $3 their watermarks
--   $4 upper bound on the tasks of each lane
-- Leaves a task that any worker may plan. Raises run_at to now, which the watermark of the other
-- lane could have passed (docs/races.md, R18). Index: task_lane_run_at.
with found as materialized (
  select t.row_id
  from unnest($2::int[], $3::timestamptz[]) as l (lane, watermark)
  cross join lateral (
    select ctid as row_id from pgsaga.task
    where lane = l.lane and run_at >= l.watermark and run_at <= (select clock_timestamp()) and worker is null
      and participant = any ($1::text[]) and interrupt is null and (deadline is null or deadline > (select clock_timestamp()))
    order by run_at limit $4
    for update skip locked
  ) t
), moved as (
  update pgsaga.task t
  set epoch = t.epoch + (t.epoch < 2147483647)::int, lane = pgsaga.lane_of(t.lane, t.participant), run_at = clock_timestamp()
  where t.ctid = any (array(select row_id from found)) and pgsaga.lane_of(t.lane, t.participant) <> t.lane
  returning 1
)
select count(*) as moved from moved
