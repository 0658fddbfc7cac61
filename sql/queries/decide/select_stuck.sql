-- Whom a bulk retry, skip or resolve is for: stuck sagas, the longest stuck first, each with those
-- of its stuck steps that pass every filter; a null filter lets all pass.
--   $1 participant: host and port of the stuck op, as its URL writes them  $2 queue  $3 stuck for
--     so many microseconds  $4 how many
-- Reads all stuck steps and, by saga_pkey, their sagas; where a participant is asked for, their
-- definitions too.
select s.gid, s.status, array_agg(k.step order by k.position) as steps, array_agg(coalesce(k.op, 'action') order by k.position) as ops,
  array_agg(k.reason order by k.position) as reasons,
  greatest(least((date_part('epoch', clock_timestamp()) - date_part('epoch', min(k.at))) * 1e6, 9e18), -9e18)::bigint as since_us
from pgsaga.stuck k join pgsaga.saga s on s.id = k.saga_id
where ($2::text is null or s.queue = $2)
  and ($3::bigint is null or k.at <= clock_timestamp() - $3 * interval '1 microsecond')
  and ($1::text is null or exists (
    select from (select s.steps -> (k.position - 1) ->> k.op as url) u
    where split_part(split_part(url, '/', case when split_part(url, '/', 1) like '%:' then 3 else 1 end), '?', 1) = $1))
group by s.id, s.gid, s.status
order by min(k.at), s.id
limit $4
