-- Takes the first lock on the listening connection of an idle worker. The insert trigger notifies
-- only while a session holds that lock. $1 also takes the second lock, which only a worker of all
-- queues may ask for. Its holder looks every second for sagas that were inserted without a
-- notification; the other workers look less often.
select pg_try_advisory_lock(8101820131131281) as locked,
  -- control: looking-lock
  case when $1::boolean then pg_try_advisory_lock(8101820131131284) else false end as looks
