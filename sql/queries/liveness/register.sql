-- A new worker: $1 lease in milliseconds, $2 host, $3 process id, $4 version. Answers its id, and
-- which server this is. The id is random (52 bits, so that it is a whole number in JSON): a standby
-- that lacks the last of the primary's WAL gives the same numbers of a sequence again when it is
-- promoted, and two workers would take each other's claims for their own.
insert into pgsaga.worker (id, lease_ms, host, pid, version) overriding system value
-- control: worker-id
values (('x' || right(translate(gen_random_uuid()::text, '-', ''), 13))::bit(52)::bigint, $1, $2, $3, $4)
returning id, pg_postmaster_start_time() as server, clock_timestamp() as now
