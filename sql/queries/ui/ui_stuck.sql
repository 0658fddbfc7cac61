-- `pgsaga ui`: returns $4 steps that wait for a person, the longest waiting first, after the
-- position (time $1, saga $2, step $3) or from the beginning. Reads all of pgsaga.stuck, and their
-- sagas by saga_pkey.
select s.gid, s.queue, k.saga_id, k.step, k.op, left(k.reason, 2000) as reason, k.at,
  greatest(least((date_part('epoch', clock_timestamp()) - date_part('epoch', k.at)) * 1e6, 9e18), -9e18)::bigint as since_us
from (
  select * from pgsaga.stuck
  where $1::timestamptz is null or (at, saga_id, step) > ($1, $2::bigint, $3::text)
  order by at, saga_id, step limit $4
) k
join pgsaga.saga s on s.id = k.saga_id
order by k.at, k.saga_id, k.step
