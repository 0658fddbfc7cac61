-- `pgsaga ui`: returns the newest sagas before the id $1 that pass every filter. A null filter lets
-- all sagas pass.
--   $2 statuses
--   $3 queue
--   $4 label keys and $5 their values, null = any
--   $6 text within the gid
--   $7 upper bound on the sagas to examine, whether they pass or not
--   $8 upper bound on the sagas to return
-- Walks saga_pkey backwards and stops at whichever bound is reached first.
select s.id, s.gid, s.status, left(s.reason, 300) as reason, s.queue, left(s.labels::text, 300) as labels, s.created_at, s.finished_at
from (
  select * from pgsaga.saga where id < coalesce($1::bigint, 9223372036854775807) order by id desc limit $7
) s
where ($2::text[] is null or s.status = any ($2))
  and ($3::text is null or s.queue = $3)
  and ($4::text[] is null or not exists (
    select from unnest($4::text[], $5::text[]) as l (key, value)
    where not coalesce(case when l.value is null then s.labels ? l.key else s.labels ->> l.key = l.value end, false)))
  and ($6::text is null or strpos(s.gid, $6) > 0)
order by s.id desc
limit $8
