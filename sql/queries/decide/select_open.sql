-- Whom a bulk abort is for: unfinished sagas, the oldest first, that do not roll back yet and pass
-- every filter; a null filter lets all pass.
--   $1 participant that some op of theirs calls, as the URL writes it  $2 queue  $3 label keys  $4
--     their values, null = any
--   $5 created so many microseconds ago  $6 how many
-- Unfinished sagas are those with a task or a stuck step: reads the hot table and those sagas, by
-- saga_pkey, not the finished ones; where a participant is asked for, their definitions too.
select s.gid, s.status, greatest(least((date_part('epoch', clock_timestamp()) - date_part('epoch', s.created_at)) * 1e6, 9e18), -9e18)::bigint as since_us
from (select saga_id from pgsaga.task union select saga_id from pgsaga.stuck) u
join pgsaga.saga s on s.id = u.saga_id
where s.finished_at is null and s.abort_reason is null and s.ending is null
  and ($2::text is null or s.queue = $2)
  and ($5::bigint is null or s.created_at <= clock_timestamp() - $5 * interval '1 microsecond')
  and not exists (
    select from unnest($3::text[], $4::text[]) as l (key, value)
    where not coalesce(case when l.value is null then s.labels ? l.key else s.labels ->> l.key = l.value end, false))
  and ($1::text is null or exists (
    select from jsonb_array_elements(case when jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end) as step, unnest(array[step ->> 'action', step ->> 'compensate']) as url
    where split_part(split_part(url, '/', case when split_part(url, '/', 1) like '%:' then 3 else 1 end), '?', 1) = $1))
order by s.id
limit $6
