-- Claims up to $2 due tasks for worker $1, and returns all that the planner needs of a sequential
-- saga (details.sql adds the rest).
--   $1 worker
--   $2 number of tasks
--   $3 newest row format that this worker knows
--   $4 bytes of definitions; the first task is claimed whatever its size
--   $5 lanes and $6 their watermarks; a lane without a watermark is scanned from the beginning
--   $7 participants that get no call now: their tasks stay, unless an interrupt or the deadline
--     makes the call unnecessary
--   $8 queues to serve, null = all; and $9 the number of tasks for each
--   $10 a number that differs each time, so that the queues of one class take turns
--   $11 start with the lowest class
--   $12 participants that get few more calls, and $13 how many
--   $14 the server that this worker knows, null = any: on another server nothing is claimed
--     (worker/engine/src/liveness/identity.rs)
--   $15 interrupted or overdue tasks to skip, because this worker may not make the call that they
--     need
--   $16 named participants whose lanes this worker serves, besides the lanes without a participant
--   $17 lanes to look at, null = all that this worker serves
-- Returns one row for each lane, at least one row in all, whose task columns are null. Then one row
-- for each task.
--
-- Walks the lanes in the order of their class, and each lane by run_at from its watermark. Now and
-- then the worker asks for the reverse order, so that no class starves. A paused queue has no
-- lanes. Index: task_lane_run_at. `run_at <= (select clock_timestamp())` is an index condition; a
-- bare call of the volatile function is not (with a million future rows, 9,116 buffers a poll
-- instead of 14). The claim is MATERIALIZED, because more rows than the limit could be updated
-- otherwise. A lateral with OFFSET 0 fetches the sagas, because it cannot become a hash join over
-- the table.
--
-- About the watermark (docs/races.md, R18): `lowest` is the lane's first row that is unclaimed in
-- this snapshot. From the running transactions and xmax the worker knows when every transaction
-- that could still commit an older run_at has ended (worker/engine/src/wake/watermark/mod.rs).
--
-- Times are returned as float8 seconds. No value of a column makes this conversion fail for the
-- other rows, and extract() would return numeric, at several times the cost. The worker checks what
-- it reads.
--
-- Holds the worker's own row FOR KEY SHARE, so that its rescue cannot pass a claim that is about to
-- commit (docs/races.md, R12), but only if something is due. A claim that finds nothing therefore
-- writes nothing, and its commit does not wait for the disk. That is the case on another server,
-- and for workers that were woken and came too late. No session holds a worker's row while it waits
-- for a task, so a task may be locked before the worker's row.
with lanes as materialized (
  select l.id, l.queue, l.priority, coalesce(m.watermark, '-infinity') as watermark, coalesce(s.room, $2) as room,
    -- control: claim-turns
    row_number() over (order by case when $11 then -l.priority else l.priority end, hashtextextended(l.queue, $10::int), hashint4extended(l.id, $10::int)) as place
  from pgsaga.lane l
  left join pgsaga.paused_queue q on q.name = l.queue
  left join unnest($5::int[], $6::timestamptz[]) as m (lane, watermark) on m.lane = l.id
  left join unnest($8::text[], $9::bigint[]) as s (queue, room) on s.queue = l.queue
  -- control: claim-lanes
  where l.participant = any (array_append($16::text[], '')) and ($17::int[] is null or l.id = any ($17))
    and q.name is null and ($8::text[] is null or s.queue is not null) and coalesce($14, pg_postmaster_start_time()) = pg_postmaster_start_time()
), due as materialized (
  select d.row_id, d.run_at, d.bytes, d.participant, l.place, l.queue, l.room
  from (select * from lanes order by place) l
  cross join lateral (
    select t.ctid as row_id, t.run_at, t.bytes, t.participant from pgsaga.task t
    -- control: claim-watermark
    where t.lane = l.id and t.run_at >= l.watermark and t.run_at <= (select clock_timestamp())
      -- control: claim-format
      and t.worker is null and t.format <= $3
      and (t.participant <> all ($7::text[])
        -- control: claim-skip
        or (t.interrupt is not null or t.deadline <= (select clock_timestamp())) and t.id <> all ($15::bigint[]))
    order by t.run_at
    limit l.room
    for update skip locked
  ) d
  limit $2
), me as materialized (
  select id from pgsaga.worker
  -- control: claim-worker
  where exists (select from due) and id = $1 and not dead for key share
), fair as (
  -- A queue's lanes share its number.
  select row_id, run_at, bytes, participant, place from due where room >= $2
  union all
  select row_id, run_at, bytes, participant, place from (
    select d.*, row_number() over (partition by d.queue order by place, run_at, row_id) as nth from due d where room < $2
  ) few
  -- control: claim-queue-room
  where nth <= room
), taken as (
  select row_id, run_at, bytes, place from fair where participant <> all ($12::text[])
  union all
  select row_id, run_at, bytes, place from (
    select d.*, p.room, row_number() over (partition by d.participant order by place, run_at, row_id) as nth
    from fair d join unnest($12::text[], $13::bigint[]) as p (participant, room) using (participant)
  ) few
  where nth <= room
), fitting as materialized (
  select row_id from (
    select row_id, sum(case when bytes between 0 and 268435456 then bytes else 0 end) over (order by place, run_at, row_id) as total,
      row_number() over (order by place, run_at, row_id) as nth
    from taken
  ) summed
  where (total <= $4 or nth = 1) and exists (select from me)
), claimed as (
  -- control: claim-epoch
  update pgsaga.task t set worker = $1, epoch = t.epoch + (t.epoch < 2147483647)::int
  where t.ctid = any (array(select row_id from fitting))
  returning t.*
), header as materialized (
  select clock_timestamp() as now, date_part('epoch', clock_timestamp()) as now_seconds,
    array(select x::text::bigint from pg_snapshot_xip(pg_current_snapshot()) x) as running,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xmax,
    -- If nothing is due, the worker learns from its heartbeat whether it is alive.
    exists (select from me)
      or not exists (select from due) and coalesce($14, pg_postmaster_start_time()) = pg_postmaster_start_time() as alive
)
select h.now, h.running, h.xmax, h.alive, l.lane, l.queue, l.priority, l.watermark,
  -- Bounded to the range of a worker's clock.
  case when l.lowest is not null then greatest(least(l.lowest, timestamptz '9999-12-31 00:00:00+00'), 'epoch') end as lowest,
  date_part('epoch', l.next_due) - h.now_seconds as next_due, h.now_seconds - date_part('epoch', l.lowest) as oldest,
  null::bigint as id, null::bigint as saga_id, null::int as epoch, null::smallint as step, null as op, null::int as attempt,
  null::int as counted, null::boolean as unknown_before, null as last_outcome, null::smallint as lost, null::smallint as lost_isolated,
  null::int as bytes, null as interrupt, null as completion, null::float8 as waited, null::float8 as deadline, null::float8 as wait_left,
  null as gid, null as steps, null as headers, null::float8 as retry_interval, null::int as retry_limit,
  null::int as compensate_retry_limit, null::float8 as request_timeout, null::float8 as timeout, null as fresh_keys,
  null::boolean as compensate_failed, null::boolean as parallel, null::boolean as refers, null::boolean as requested, null::float8 as age
from header h
left join lateral (
  select s.id as lane, s.queue, s.priority, greatest(s.watermark, 'epoch') as watermark,
    (select run_at from pgsaga.task t where t.lane = s.id and run_at >= s.watermark and worker is null order by run_at limit 1) as lowest,
    (select run_at from pgsaga.task t where t.lane = s.id and run_at > (select clock_timestamp()) and worker is null and format <= $3
       and (participant <> all ($7::text[]) or interrupt is not null)
     order by run_at limit 1) as next_due
  from lanes s
) l on true
union all
select null, null, null, null, c.lane, null, null, null, null, null, null,
  c.id, c.saga_id, c.epoch, c.step, c.op, c.attempt, c.counted, c.unknown_before, c.last_outcome, c.lost, c.lost_isolated,
  -- control: claim-times
  c.bytes, c.interrupt, c.completion, h.now_seconds - date_part('epoch', c.run_at), date_part('epoch', c.deadline) - h.now_seconds,
  date_part('epoch', c.wait_ends_at) - h.now_seconds,
  s.gid, s.steps, s.headers, s.retry_interval, s.retry_limit, s.compensate_retry_limit, s.request_timeout, s.timeout,
  s.fresh_keys, s.compensate_failed, s.parallel, s.refers, s.requested, h.now_seconds - s.created_at
-- A left join, because a task whose saga is gone is returned as well.
from header h cross join claimed c left join lateral (
  select gid, date_part('epoch', created_at) as created_at, case when progress is null then steps::text end as steps, headers::text as headers, retry_limit,
    compensate_retry_limit, compensate_failed, fresh_keys::text as fresh_keys, progress is not null as parallel,
    -- control: claim-past-pivot
    progress is not null and abort_reason is not null and not pgsaga.is_past_pivot(s, null) as requested,
    answers or result_mapping is not null as refers,
    date_part('epoch', retry_interval) as retry_interval, date_part('epoch', request_timeout) as request_timeout,
    date_part('epoch', timeout_to_fail) as timeout
  from pgsaga.saga s where id = c.saga_id offset 0
) s on true
