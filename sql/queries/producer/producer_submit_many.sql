-- Inserts many sagas in one statement. Returns for each, in the order of the input, its gid and
-- whether it was created. Idempotent by the unique index saga_gid_key. A gid that occurs twice is
-- created once, for its first occurrence. Gids are inserted in sorted order, so that two producers
-- with the same gids wait for each other instead of deadlocking. Generated gids are returned in the
-- order of insertion, which is the order of the input, so row_number() pairs them.
--   arrays with one element for each saga:
--   $1 gids  $2 steps  $3 retry_intervals  $4 retry_limits  $5 request_timeouts  $6 headers  $7
--     labels
--   $8 queues  $9 priorities  $10 run_ats  $11 run_afters (added to the database's clock)
--   $12 timeouts_to_fail  $13 compensate_retry_limits  $14 compensate_failed
--   $15 result_mappings
--   null = the default
with input as materialized (
  select t.gid, t.steps::jsonb as steps, coalesce(t.retry_interval, '10 seconds') as retry_interval, t.retry_limit,
         coalesce(t.request_timeout, '3 seconds') as request_timeout, t.headers::jsonb as headers,
         t.labels::jsonb as labels, coalesce(t.queue, 'default') as queue, coalesce(t.priority, 1::smallint) as priority,
         coalesce(t.run_at, clock_timestamp() + t.run_after) as run_at, t.timeout_to_fail, t.compensate_retry_limit, coalesce(t.compensate_failed, false) as compensate_failed,
         t.result_mapping::jsonb as result_mapping, t.place,
         row_number() over (partition by t.gid order by t.place) as nth
  from unnest($1::text[], $2::text[], $3::interval[], $4::int[], $5::interval[], $6::text[], $7::text[], $8::text[],
              $9::smallint[], $10::timestamptz[], $11::interval[], $12::interval[], $13::int[], $14::boolean[], $15::text[])
    with ordinality as t (gid, steps, retry_interval, retry_limit, request_timeout, headers, labels, queue, priority,
                          run_at, run_after, timeout_to_fail, compensate_retry_limit, compensate_failed, result_mapping, place)
), given as (
  insert into pgsaga.saga (gid, steps, retry_interval, retry_limit, request_timeout, headers, labels,
                           queue, priority, run_at, timeout_to_fail, compensate_retry_limit, compensate_failed, result_mapping)
    select gid, steps, retry_interval, retry_limit, request_timeout, headers, labels,
           queue, priority, run_at, timeout_to_fail, compensate_retry_limit, compensate_failed, result_mapping
    from input where gid is not null and nth = 1 order by gid collate "C"
  on conflict (gid) do nothing
  returning gid
), made as (
  insert into pgsaga.saga (steps, retry_interval, retry_limit, request_timeout, headers, labels,
                           queue, priority, run_at, timeout_to_fail, compensate_retry_limit, compensate_failed, result_mapping)
    select steps, retry_interval, retry_limit, request_timeout, headers, labels,
           queue, priority, run_at, timeout_to_fail, compensate_retry_limit, compensate_failed, result_mapping
    from input where gid is null order by place
  returning gid
)
select coalesce(i.gid, m.gid) as gid, i.gid is null or (g.gid is not null and i.nth = 1) as created
from input i
  left join given g on g.gid = i.gid
  left join (select gid, row_number() over () as nth from made) m on i.gid is null and m.nth = i.nth
order by i.place
