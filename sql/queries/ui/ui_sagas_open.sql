-- `pgsaga ui`: like ui_sagas, but examines only sagas that have a task ($9) or are stuck, which are
-- all unfinished sagas, however old. $7 is the upper bound on the tasks and stuck steps to examine,
-- of which a saga may have several. Indexes: task_saga and stuck_pkey, backwards, then saga_pkey
-- for each saga. Without the inner limits it would read all tasks.
select s.id, s.gid, s.status, left(s.reason, 300) as reason, s.queue, left(s.labels::text, 300) as labels, s.created_at, s.finished_at
from (
  select distinct o.saga_id from (
    select q.saga_id from (
      (select saga_id from pgsaga.task where $9::boolean and saga_id < coalesce($1::bigint, 9223372036854775807)
       order by saga_id desc limit $7)
      union all
      (select saga_id from pgsaga.stuck where saga_id < coalesce($1::bigint, 9223372036854775807) order by saga_id desc limit $7)
    ) q
    order by q.saga_id desc limit $7
  ) o
  order by o.saga_id desc
) open
cross join lateral (select * from pgsaga.saga where id = open.saga_id offset 0) s
where ($2::text[] is null or s.status = any ($2))
  and ($3::text is null or s.queue = $3)
  and ($4::text[] is null or not exists (
    select from unnest($4::text[], $5::text[]) as l (key, value)
    where not coalesce(case when l.value is null then s.labels ? l.key else s.labels ->> l.key = l.value end, false)))
  and ($6::text is null or strpos(s.gid, $6) > 0)
order by open.saga_id desc
limit $8
