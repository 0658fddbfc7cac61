-- Returns what a claim would say of its lanes, without claiming. A worker that has found nothing
-- peeks before it claims again: a claim costs several times as much, and ten idle workers would do
-- little else.
--   $1 lanes and $2 their watermarks
--   $3 queues to serve, null = all
--   $4 the server that this worker knows, null = any: on another server no row is returned
--     (worker/engine/src/liveness/identity.rs)
--   $5 named participants as in claim.sql
-- Returns one row for each lane, with the columns of claim.sql's lanes, from which watermarks
-- advance as after a claim. `lowest` is the lane's first unclaimed row from its watermark on; once
-- that row is due, a claim is worthwhile. Only a claim knows what a participant, a limit or a row's
-- format holds back. If no row is returned, the worker claims. Index: task_lane_run_at.
with header as materialized (
  select clock_timestamp() as now, date_part('epoch', clock_timestamp()) as now_seconds,
    array(select x::text::bigint from pg_snapshot_xip(pg_current_snapshot()) x) as running,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xmax
)
select h.now, h.running, h.xmax, l.id as lane, l.queue, l.priority, greatest(m.watermark, 'epoch') as watermark,
  case when t.run_at is not null then greatest(least(t.run_at, timestamptz '9999-12-31 00:00:00+00'), 'epoch') end as lowest,
  date_part('epoch', t.run_at) - h.now_seconds as next_due, h.now_seconds - date_part('epoch', t.run_at) as oldest
from header h cross join pgsaga.lane l
left join pgsaga.paused_queue q on q.name = l.queue
left join unnest($1::int[], $2::timestamptz[]) as m (lane, watermark) on m.lane = l.id
left join lateral (
  select run_at from pgsaga.task where lane = l.id and run_at >= coalesce(m.watermark, '-infinity') and worker is null
  order by run_at limit 1
) t on true
where l.participant = any (array_append($5::text[], '')) and q.name is null and ($3::text[] is null or l.queue = any ($3)) and coalesce($4, pg_postmaster_start_time()) = pg_postmaster_start_time()
