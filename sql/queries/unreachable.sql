-- Tasks that no claim reaches, up to $1 a lane, and in words why: a time that never comes, a lane that is none, a format that
-- no release wrote ($2 is the newest one known, null = a newer release may have written it). Only somebody who changed the row
-- by hand leaves a task so; its saga would wait for ever without a word.
--
-- The ends of each lane are looked at: the far future, and what has been due for longest. Lanes that are none are found
-- by a walk over the lanes in use. Index: task_lane_run_at.
with recursive used (lane) as (
  select min(lane) from pgsaga.task
  union all
  select (select min(t.lane) from pgsaga.task t where t.lane > u.lane) from used u where u.lane is not null
), found as materialized (
  select t.id, t.epoch, t.saga_id, 'run_at: found ' || t.run_at || '; allowed: a time before the year 10000' as why
  from pgsaga.lane l cross join lateral (
    select id, epoch, saga_id, run_at from pgsaga.task
    where lane = l.id and run_at >= timestamptz '10000-01-01 00:00:00+00' and worker is null
    order by run_at limit $1
  ) t
  union all
  select t.id, t.epoch, t.saga_id, 'lane: found ' || t.lane || '; allowed: an id of pgsaga.lane'
  from used u cross join lateral (
    select id, epoch, saga_id, lane from pgsaga.task where lane = u.lane and worker is null order by run_at limit $1
  ) t
  where u.lane is not null and not exists (select from pgsaga.lane l where l.id = u.lane)
  union all
  select t.id, t.epoch, t.saga_id, 'format: found ' || t.format || '; allowed: 1 to ' || $2::smallint
  from pgsaga.lane l cross join lateral (
    select id, epoch, saga_id, format from pgsaga.task
    where lane = l.id and run_at <= (select clock_timestamp()) and worker is null
    order by run_at limit $1
  ) t
  where t.format > $2::smallint
)
select f.id, f.epoch, s.gid, 'task ' || f.id || ': ' || f.why as why
from found f left join lateral (select gid from pgsaga.saga where id = f.saga_id offset 0) s on true
