-- A transfer as an application in any language would submit it: one INSERT. $1 is the transfer as a
-- JSON object.
insert into pgsaga.saga (gid, steps, retry_interval, request_timeout, labels)
select t.gid,
  jsonb_build_array(
    jsonb_build_object(
      'name', 'withdraw',
      'action', t.from_url || '/withdraw',
      'compensate', t.from_url || '/withdraw/undo',
      'payload', jsonb_build_object('account', t.from_account, 'amount', t.amount)
    ),
    jsonb_build_object(
      'name', 'deposit',
      'action', t.to_url || '/deposit',
      'compensate', t.to_url || '/deposit/undo',
      'payload', jsonb_build_object('account', t.to_account, 'amount', t.amount)
    )
  ),
  t.retry_interval_ms * interval '1 millisecond',
  t.request_timeout_ms * interval '1 millisecond',
  '{"producer": "sql"}'
from jsonb_to_record($1::jsonb) as t (
  gid text, from_url text, from_account int, to_url text, to_account int, amount bigint,
  retry_interval_ms bigint, request_timeout_ms bigint
)
