-- Registers a worker and returns its id and the server.
--   $1 lease in milliseconds  $2 host  $3 process id  $4 version
-- The id is random, because a standby that lacks the end of the primary's WAL repeats the numbers
-- of a sequence after its promotion. Two workers would then share an id and each would take the
-- other's claims for its own. The id has 52 bits, so that it is a whole number in JSON.
insert into pgsaga.worker (id, lease_ms, host, pid, version) overriding system value
-- control: worker-id
values (('x' || right(translate(gen_random_uuid()::text, '-', ''), 13))::bit(52)::bigint, $1, $2, $3, $4)
returning id, pg_postmaster_start_time() as server, clock_timestamp() as now
