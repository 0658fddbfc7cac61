-- A transfer as an application in any language would submit it: one INSERT.
-- $1 gid, $2 URL of the bank that pays, $3 its account, $4 URL of the bank that receives, $5 its account, $6 amount,
-- $7 retry_interval, $8 request_timeout, both in ms
insert into pgsaga.saga (gid, steps, retry_interval, request_timeout, labels)
values (
  $1,
  jsonb_build_array(
    jsonb_build_object(
      'name', 'withdraw',
      'action', $2 || '/withdraw',
      'compensate', $2 || '/withdraw/undo',
      'payload', jsonb_build_object('account', $3::int, 'amount', $6::bigint)
    ),
    jsonb_build_object(
      'name', 'deposit',
      'action', $4 || '/deposit',
      'compensate', $4 || '/deposit/undo',
      'payload', jsonb_build_object('account', $5::int, 'amount', $6::bigint)
    )
  ),
  make_interval(secs => $7::float8 / 1000),
  make_interval(secs => $8::float8 / 1000),
  '{"producer": "sql"}'
)
