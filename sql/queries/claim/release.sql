-- Releases tasks that were claimed and not called.
--   $1 worker  $2 tasks  $3 their epochs  $4 delays in microseconds
--   $5 participants that they call, null = unknown
-- A task goes into the lane of its participant, where there is one. A task with an interrupt or a
-- completion, or whose participant is unknown, goes where every worker looks: it may still lie in
-- the lane of the step before, which others do not serve. Raises run_at to now, because a watermark
-- could have passed it (docs/races.md, R18). No wait exceeds a deadline that has not passed. Does
-- not notify: where the queue of notifications is full, a transaction that notifies cannot commit.
-- Index: task_pkey.
with returned as materialized (
  select t.id, i.delay_us, i.participant
  from unnest($2::bigint[], $3::int[], $4::bigint[], $5::text[]) as i(task_id, epoch, delay_us, participant)
  -- control: release-lock
  cross join lateral (
    select id from pgsaga.task where id = i.task_id and worker = $1 and epoch = i.epoch offset 0
    for update skip locked
  ) t
), updated as (
  update pgsaga.task t
  -- control: release-epoch
  set worker = null, isolated = false, epoch = t.epoch + (t.epoch < 2147483647)::int, participant = case when t.completion is null then coalesce(r.participant, '') else '' end,
      -- control: release-lane
      lane = pgsaga.lane_of(t.lane, case when t.interrupt is null and t.completion is null then coalesce(r.participant, '') else '' end),
      -- control: release-time
      run_at = least(clock_timestamp() + r.delay_us * interval '1 microsecond',
                     case when t.deadline > clock_timestamp() then t.deadline end)
  from returned r
  -- By id, because an interrupt may have made a newer row version, which the lock has found.
  where t.id = any (array(select id from returned)) and t.id = r.id
  returning t.id
)
select id from updated
