-- Returns up to $1 tasks of each lane that no claim can reach although their saga is open, and says
-- why in words: a `run_at` that never comes or lies before all watermarks, a lane that does not
-- exist, or a row format that no release wrote. $2 is the newest format of schema version $3; if
-- the schema is newer, a newer release may have written the format. Only an edit by hand leaves
-- such a task, and its saga would wait for ever unnoticed.
--
-- Examines the ends of each lane: the far future, the far past, and the tasks that have been due
-- for longest. A walk over the lanes in use finds lanes that do not exist. Index: task_lane_run_at.
with recursive used (lane) as (
  select min(lane) from pgsaga.task
  union all
  select (select min(t.lane) from pgsaga.task t where t.lane > u.lane) from used u where u.lane is not null
), known as materialized (
  select case when not exists (select from pgsaga.migration where version > $3) then $2::smallint end as format
), found as materialized (
  select t.id, t.epoch, t.saga_id, t.gid, 'run_at: found ' || t.run_at || '; allowed: from 1970 to 9999' as why
  from pgsaga.lane l cross join lateral (
    select k.id, k.epoch, k.saga_id, k.run_at, s.gid
    from pgsaga.task k join pgsaga.saga s on s.id = k.saga_id and s.finished_at is null
    where k.lane = l.id and k.run_at >= timestamptz '10000-01-01 00:00:00+00' and k.worker is null
    order by k.run_at limit $1
  ) t
  union all
  select t.id, t.epoch, t.saga_id, t.gid, 'run_at: found ' || t.run_at || '; allowed: from 1970 to 9999'
  from pgsaga.lane l cross join lateral (
    select k.id, k.epoch, k.saga_id, k.run_at, s.gid
    from pgsaga.task k join pgsaga.saga s on s.id = k.saga_id and s.finished_at is null
    where k.lane = l.id and k.run_at < timestamptz 'epoch' and k.worker is null
    order by k.run_at limit $1
  ) t
  union all
  select t.id, t.epoch, t.saga_id, t.gid, 'lane: found ' || t.lane || '; allowed: an id of pgsaga.lane'
  from used u cross join lateral (
    select k.id, k.epoch, k.saga_id, k.lane, s.gid
    from pgsaga.task k join pgsaga.saga s on s.id = k.saga_id and s.finished_at is null
    where k.lane = u.lane and k.worker is null order by k.run_at limit $1
  ) t
  where u.lane is not null and not exists (select from pgsaga.lane l where l.id = u.lane)
  union all
  select t.id, t.epoch, t.saga_id, s.gid, 'format: found ' || t.format || '; allowed: 1 to ' || known.format
  from pgsaga.lane l cross join known cross join lateral (
    select id, epoch, saga_id, format from pgsaga.task
    where lane = l.id and run_at <= (select clock_timestamp()) and worker is null
    order by run_at limit $1
  ) t
  join pgsaga.saga s on s.id = t.saga_id and s.finished_at is null
  where t.format > known.format
)
select id, epoch, saga_id, gid, 'task ' || id || ': ' || why as why from found
