-- Makes the waiting task of saga $1 due, and wakes workers, so that a test does not wait for
-- retries. Raises run_at to now and never to a time before, which a watermark could have passed.
with due as (
  update pgsaga.task set run_at = clock_timestamp()
  where saga_id = (select id from pgsaga.saga where gid = $1) and worker is null
    and run_at > clock_timestamp() + interval '10 milliseconds'
  returning participant
)
select pg_notify('pgsaga', '') from due
