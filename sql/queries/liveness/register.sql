-- Registers a worker and returns its id and the server. In a database that the worker may not work
-- in, it registers nothing, and returns no id and the reason.
--   $1 lease in milliseconds  $2 host  $3 process id  $4 version
--   $5 environment that the worker works for; null = none  $6 queues; null = every queue
--   $7 named participants that the worker serves  $8 those whose handlers run in a transaction of
--     this database
-- The id is random, because a standby that lacks the end of the primary's WAL repeats the numbers
-- of a sequence after its promotion. Two workers would then share an id and each would take the
-- other's claims for its own. The id has 52 bits, so that it is a whole number in JSON.
with home as materialized (
  select misfit, doubt from pgsaga.check_home($5)
), registered as (
  insert into pgsaga.worker (id, lease_ms, host, pid, version, queues, participants, transactional) overriding system value
  -- control: worker-id
  select ('x' || right(translate(gen_random_uuid()::text, '-', ''), 13))::bit(52)::bigint, $1::int, $2::text, $3::int, $4::text, $6::text[], $7::text[], $8::text[]
  from home where home.misfit is null
  returning id
)
select r.id, home.misfit, home.doubt, pg_postmaster_start_time() as server, clock_timestamp() as now
from home left join registered r on true
