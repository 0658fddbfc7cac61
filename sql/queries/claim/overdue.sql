-- Moves tasks whose deadline has passed out of lanes whose participant no living worker serves, up
-- to $1 from each lane: any worker rolls their sagas back. Walks over all tasks of these lanes,
-- because no index has the deadline. Returns their number.
with unserved as materialized (
  select l.id, pgsaga.lane_of(l.id, '') as lane from pgsaga.lane l
  where l.participant > '' and not exists (select from pgsaga.worker w where not w.dead and l.participant = any (w.participants))
), found as materialized (
  select t.row_id, u.lane
  from unserved u
  cross join lateral (
    select ctid as row_id from pgsaga.task
    -- control: overdue-unserved
    where lane = u.id and worker is null and deadline <= (select clock_timestamp())
    limit $1
    for update skip locked
  ) t
), moved as (
  update pgsaga.task t
  set epoch = t.epoch + (t.epoch < 2147483647)::int, lane = f.lane, run_at = clock_timestamp()
  from found f
  where t.ctid = f.row_id
  returning 1
)
select count(*) as moved from moved
