-- `pgsaga list`: the newest sagas. $1 status or null, $2 only unfinished ones, $3 how many. Walks saga_pkey backwards.
select s.gid, s.status, s.reason, s.created_at, s.finished_at, jsonb_array_length(s.steps) as steps,
  t.step, t.op, t.attempt, t.worker, (extract(epoch from t.run_at - clock_timestamp()) * 1000)::bigint as due_ms
from (
  select * from pgsaga.saga
  where ($1::text is null or status = $1) and (not $2::boolean or finished_at is null)
  order by id desc limit $3
) s
-- the hot table has no index on saga_id (each would cost every claim); it is small, and one scan serves all rows.
left join pgsaga.task t on t.saga_id = s.id
order by s.id desc
