-- An idle worker holds the first lock on its listening connection; the insert trigger notifies only
-- while someone does. With the second one, which only a worker of all queues asks for ($1), it
-- looks every second for what was inserted without a notification; the others may take longer.
select pg_try_advisory_lock(8101820131131281) as locked,
  -- control: looking-lock
  case when $1::boolean then pg_try_advisory_lock(8101820131131284) else false end as looks
