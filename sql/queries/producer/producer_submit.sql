-- Inserts one saga. An INSERT with a gid is idempotent by the unique index saga_gid_key, and
-- returns no row if the gid exists. Without a gid, the column's default generates it. There are two
-- INSERTs because a default applies only if the INSERT does not name the column.
--   $1 gid  $2 steps  $3 retry_interval  $4 retry_limit  $5 request_timeout  $6 headers  $7 labels
--   $8 queue  $9 priority  $10 run_at  $11 run_after (added to the database's clock)
--   $12 timeout_to_fail  $13 compensate_retry_limit  $14 compensate_failed  $15 result_mapping
--   null = the default
with given as (
  insert into pgsaga.saga (gid, steps, retry_interval, retry_limit, request_timeout, headers, labels,
                           queue, priority, run_at, timeout_to_fail, compensate_retry_limit, compensate_failed, result_mapping)
    select $1::text, $2::text::jsonb, coalesce($3::interval, '10 seconds'), $4::int,
           coalesce($5::interval, '3 seconds'), $6::text::jsonb, $7::text::jsonb,
           coalesce($8::text, 'default'), coalesce($9::smallint, 1::smallint),
           coalesce($10::timestamptz, clock_timestamp() + $11::interval), $12::interval, $13::int, coalesce($14::boolean, false), $15::text::jsonb
    where $1 is not null
  on conflict (gid) do nothing
  returning gid
), made as (
  insert into pgsaga.saga (steps, retry_interval, retry_limit, request_timeout, headers, labels,
                           queue, priority, run_at, timeout_to_fail, compensate_retry_limit, compensate_failed, result_mapping)
    select $2::text::jsonb, coalesce($3::interval, '10 seconds'), $4::int,
           coalesce($5::interval, '3 seconds'), $6::text::jsonb, $7::text::jsonb,
           coalesce($8::text, 'default'), coalesce($9::smallint, 1::smallint),
           coalesce($10::timestamptz, clock_timestamp() + $11::interval), $12::interval, $13::int, coalesce($14::boolean, false), $15::text::jsonb
    where $1 is null
  returning gid
)
select gid from given union all select gid from made
