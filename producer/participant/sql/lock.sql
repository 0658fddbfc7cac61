-- Replicas that start together would fail on each other's half-made objects: `if not exists` does
-- not wait.
select pg_advisory_xact_lock(8101820131131283);
