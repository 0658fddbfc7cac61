-- Claims for worker $1 tasks that no claim reaches, up to $2 a lane, and says in words why: a time that never comes, a lane
-- that is none, a format that no release wrote ($3 is the newest one known, null = a newer release may have written it).
-- Only somebody who changed the row by hand leaves a task so; its saga would wait for ever without a word.
--
-- The ends of each lane are looked at: the far future, and what has been due for longest. Lanes that are none are found
-- by a walk over the lanes in use. Waits for no task. Index: task_lane_run_at.
with recursive used (lane) as (
  select min(lane) from pgsaga.task
  union all
  select (select min(t.lane) from pgsaga.task t where t.lane > u.lane) from used u where u.lane is not null
), me as materialized (
  select id from pgsaga.worker where id = $1 and not dead for key share
), suspect as materialized (
  select t.row_id, 'run_at: found ' || t.run_at || '; allowed: a time before the year 10000' as why
  from pgsaga.lane l cross join lateral (
    select ctid as row_id, run_at from pgsaga.task
    where lane = l.id and run_at >= timestamptz '10000-01-01 00:00:00+00' and worker is null
    order by run_at limit $2
  ) t
  union all
  select t.row_id, 'lane: found ' || t.lane || '; allowed: an id of pgsaga.lane'
  from used u cross join lateral (
    select ctid as row_id, lane from pgsaga.task where lane = u.lane and worker is null order by run_at limit $2
  ) t
  where u.lane is not null and not exists (select from pgsaga.lane l where l.id = u.lane)
  union all
  select t.row_id, 'format: found ' || t.format || '; allowed: 1 to ' || $3::smallint
  from pgsaga.lane l cross join lateral (
    select ctid as row_id, format from pgsaga.task
    where lane = l.id and run_at <= (select clock_timestamp()) and worker is null
    order by run_at limit $2
  ) t
  where t.format > $3::smallint
), found as materialized (
  select t.row_id, t.id, 'task ' || t.id || ': ' || s.why as why
  from (select * from suspect where exists (select from me)) s
  cross join lateral (
    select ctid as row_id, id from pgsaga.task where ctid = s.row_id and worker is null for update skip locked
  ) t
), claimed as (
  update pgsaga.task t set worker = $1, epoch = t.epoch + (t.epoch < 2147483647)::int
  where t.ctid = any (array(select row_id from found))
  returning t.id, t.epoch, t.saga_id
)
select c.id, c.epoch, c.saga_id, s.gid, f.why
from claimed c join found f using (id)
left join lateral (select gid from pgsaga.saga where id = c.saga_id offset 0) s on true
