-- `pgsaga ui`: $4 steps that wait for a person, the longest first, from the beginning or behind ($1 microseconds since 1970,
-- saga $2, step $3). Reads all of pgsaga.stuck, and their sagas by saga_pkey.
select s.gid, s.queue, k.saga_id, k.step, k.op, left(k.reason, 2000) as reason, k.at,
  (extract(epoch from k.at) * 1000000)::bigint as at_us,
  (extract(epoch from clock_timestamp() - k.at) * 1000000)::bigint as since_us
from (
  select * from pgsaga.stuck
  where $1::bigint is null or (at, saga_id, step) > (timestamptz '1970-01-01 00:00:00+00' + $1 * interval '1 microsecond', $2::bigint, $3::text)
  order by at, saga_id, step limit $4
) k
join pgsaga.saga s on s.id = k.saga_id
order by k.at, k.saga_id, k.step
