-- Releases tasks that were claimed and not called.
--   $1 worker  $2 tasks  $3 their epochs  $4 delays in microseconds
--   $5 participants that they call, null = unknown
-- Raises run_at to now, because a watermark could have passed it (docs/races.md, R18). No wait
-- exceeds a deadline that has not passed. Notifies idle workers if a released task is due. Index:
-- task_pkey.
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
  set worker = null, isolated = false, epoch = t.epoch + (t.epoch < 2147483647)::int, participant = coalesce(r.participant, ''),
      -- control: release-time
      run_at = least(clock_timestamp() + r.delay_us * interval '1 microsecond',
                     case when t.deadline > clock_timestamp() then t.deadline end)
  from returned r
  -- By id, because an interrupt may have made a newer row version, which the lock has found.
  where t.id = any (array(select id from returned)) and t.id = r.id
  returning t.id
), woken as materialized (
  select pg_notify('pgsaga', '') where exists (select from returned where delay_us = 0)
)
select u.id from updated u left join woken on true
