-- Defers due tasks of participants that get no call now, so that no claim has to walk over them.
--   $1 participants
--   $2 delay in microseconds
--   $3 lanes and $4 their watermarks
--   $5 upper bound on the tasks of each lane
--   $6 only if every living worker may not call the first participant of $1
-- Never defers a task beyond its deadline, nor a task that needs no call. A task that has been due
-- for less than two seconds stays, because a worker that can make the call may claim it. The delay
-- varies by half, because all tasks would become due at the same time otherwise. Index:
-- task_lane_run_at.
with found as materialized (
  select t.row_id
  from unnest($3::int[], $4::timestamptz[]) as l (lane, watermark)
  cross join lateral (
    select ctid as row_id from pgsaga.task
    where lane = l.lane and run_at >= l.watermark and run_at <= (select clock_timestamp() - interval '2 seconds') and worker is null
      and participant = any ($1::text[]) and (not $6 or (select bool_and(coalesce(denied ? ($1::text[])[1], false)) from pgsaga.worker where not dead))
      and interrupt is null and (deadline is null or deadline > (select clock_timestamp()))
    order by run_at limit $5
    for update skip locked
  ) t
), deferred as (
  update pgsaga.task t
  -- control: defer-epoch
  set epoch = t.epoch + (t.epoch < 2147483647)::int,
      run_at = greatest(clock_timestamp(), least(clock_timestamp() + $2 * (0.5 + random()) * interval '1 microsecond', t.deadline))
  where t.ctid = any (array(select row_id from found))
  returning 1
)
select count(*) as deferred from deferred
