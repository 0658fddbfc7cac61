-- Gives tasks back unstarted: $1 worker, $2 tasks, $3 their epochs, $4 delay in microseconds. run_at is raised to now,
-- or a low-water mark could have passed it (RACES 18). Wakes idle workers. Index: task_pkey.
with returned as materialized (
  select t.row_id
  from unnest($2::bigint[], $3::int[]) as i(task_id, epoch)
  cross join lateral (
    select ctid as row_id from pgsaga.task where id = i.task_id and worker = $1 and epoch = i.epoch offset 0
    for update skip locked
  ) t
), updated as (
  update pgsaga.task t
  set worker = null, alone = false, epoch = t.epoch + 1, run_at = clock_timestamp() + $4 * interval '1 microsecond'
  where t.ctid = any (array(select row_id from returned))
  returning t.id
), woken as materialized (
  select pg_notify('pgsaga', '') where exists (select from returned)
)
select u.id from updated u left join woken on true
