-- `pgsaga list`: returns the newest sagas that pass every filter. A null filter lets all sagas
-- pass.
--   $1 statuses
--   $2 only unfinished sagas
--   $3 created at least, and $4 at most this many microseconds ago
--   $5 queue
--   $6 label keys and $7 their values, null = any
--   $8 participant that some op calls, as the URL writes it
--   $9 no progress for this many microseconds: the answers to a queued op, over at least that time
--     and up to the last answer, were all 404 or ongoing, without another outcome between them. An
--     op that waits for a completion is left out
--   $10 number of sagas
-- A row that was changed by hand may hold any value: a value that is no array counts as an empty
-- array, and times may be infinite, so differences are computed with numbers and end at 9e18.
--
-- Walks saga_pkey backwards until the limit is reached. If few sagas pass the filters, it walks
-- over all of them: a million finished two-step sagas of which none passes take 0.2 s by status or
-- queue, 0.6 s by age, 1.2 s by label, 4.2 s by participant. The expensive filters come last: $8
-- reads the definition of each saga that passed the others, $9 the history of each unfinished saga.
select s.gid, s.status, s.reason, s.queue, s.priority, s.labels::text as labels, s.created_at, s.finished_at, jsonb_array_length(case when jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end) as steps,
  coalesce(s.steps -> (t.step - 1) ->> 'name', lpad(t.step::text, greatest(2, length(t.step::text)), '0')) as step,
  t.op, t.attempt, t.worker, t.format, t.due_ms, coalesce(t.tasks, 0) as tasks
from (
  select * from pgsaga.saga s
  where ($1::text[] is null or s.status = any ($1))
    and (not $2::boolean or s.finished_at is null)
    and ($3::bigint is null or s.created_at <= clock_timestamp() - $3 * interval '1 microsecond')
    and ($4::bigint is null or s.created_at >= clock_timestamp() - $4 * interval '1 microsecond')
    and ($5::text is null or s.queue = $5)
    and ($6::text[] is null or not exists (
      select from unnest($6::text[], $7::text[]) as l (key, value)
      where not coalesce(case when l.value is null then s.labels ? l.key else s.labels ->> l.key = l.value end, false)))
    and ($9::bigint is null or s.finished_at is null)
    and case when $8::text is null then true else exists (
      select from jsonb_array_elements(case when jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end) as step, unnest(array[step ->> 'action', step ->> 'compensate']) as url
      where split_part(split_part(url, '/', case when split_part(url, '/', 1) like '%:' then 3 else 1 end), '?', 1) = $8) end
    and case when $9::bigint is null then true when s.finished_at is not null then false else exists (
      select from (
        select h.step, h.op, h.seq, h.at,
          max(h.seq) filter (where not coalesce(h.status_code = 404 or h.outcome in (select o.outcome from pgsaga.outcome o where not o.counted), false)) over (partition by h.step, h.op) as other
        from pgsaga.history h where h.saga_id = s.id and h.kind = 'attempt'
      ) h
      join pgsaga.task q on q.saga_id = s.id and q.step = h.step and q.op = h.op and coalesce(q.wait_ends_at <= clock_timestamp(), true)
      where (h.other is null or h.seq > h.other) and h.at <= clock_timestamp() - $9 * interval '1 microsecond') end
  order by s.id desc
  limit $10
) s
left join lateral (
  select step, op, attempt, worker, format, greatest(least((date_part('epoch', run_at) - date_part('epoch', clock_timestamp())) * 1e3, 9e18), -9e18)::bigint as due_ms, count(*) over () as tasks
  from pgsaga.task where saga_id = s.id order by run_at, id limit 1
) t on true
order by s.id desc
