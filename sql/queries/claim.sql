-- Claims up to $2 due tasks for worker $1, oldest first, with all that the planner needs.
--   $1 worker  $2 how many  $3 low-water mark  $4 newest row format that this worker knows
--   $5 bytes of definitions; the first task is claimed whatever its size
-- Always answers at least one row: its task columns are null when nothing was claimed.
--
-- Index: task_run_at, from the mark on. `run_at <= (select clock_timestamp())` is an index condition; the bare
-- volatile call is not (a million future rows: 9,116 buffers a poll against 14). The claim is MATERIALIZED, or more
-- rows than the limit could be updated. Sagas are fetched by a lateral with OFFSET 0, which cannot become a hash join over the table.
--
-- The mark (RACES 18): `lowest` is the first row unclaimed in this snapshot; with xmin and xmax the worker knows when
-- every transaction that could still commit an older run_at has ended (worker/src/mark.rs).
-- The worker's own row is held FOR KEY SHARE, so that its rescue cannot pass a claim that is about to commit (RACES 12).
with me as materialized (
  select id from pgsaga.worker where id = $1 and not dead for key share
), due as materialized (
  select ctid as row_id, run_at, bytes from pgsaga.task
  where run_at >= $3 and run_at <= (select clock_timestamp()) and worker is null and format <= $4
  order by run_at
  limit case when exists (select from me) then $2 else 0 end
  for update skip locked
), fitting as materialized (
  select row_id from (
    select row_id, sum(bytes) over (order by run_at, row_id) as total, row_number() over (order by run_at, row_id) as place
    from due
  ) summed
  where total <= $5 or place = 1
), claimed as (
  update pgsaga.task t set worker = $1, epoch = t.epoch + 1
  where t.ctid = any (array(select row_id from fitting))
  returning t.*
), header as materialized (
  select clock_timestamp() as now,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint as xmin,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xmax,
    exists (select from me) as alive,
    (select run_at from pgsaga.task where run_at >= $3 and worker is null order by run_at limit 1) as lowest,
    (select run_at from pgsaga.task where run_at > (select clock_timestamp()) and worker is null and format <= $4
     order by run_at limit 1) as next_due
)
select h.now, h.xmin, h.xmax, h.alive, h.lowest,
  (extract(epoch from h.next_due - h.now) * 1000)::bigint as next_due_ms,
  (extract(epoch from h.now - h.lowest) * 1000000)::bigint as oldest_us,
  c.id, c.saga_id, c.epoch, c.step, c.op, c.attempt, c.counted, c.unknown_before, c.last_outcome, c.lost, c.bytes,
  (extract(epoch from h.now - c.run_at) * 1000000)::bigint as waited_us,
  s.gid, s.steps, s.headers, s.retry_interval_us, s.retry_limit, s.request_timeout_us
from header h
left join (
  claimed c cross join lateral (
    select gid, steps::text as steps, headers::text as headers, retry_limit,
      (extract(epoch from retry_interval) * 1000000)::bigint as retry_interval_us,
      (extract(epoch from request_timeout) * 1000000)::bigint as request_timeout_us
    from pgsaga.saga where id = c.saga_id offset 0
  ) s
) on true
