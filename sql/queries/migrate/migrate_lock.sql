-- Takes the lock of migrations until the transaction ends: roles.sql and printed scripts take it as
-- well.
select pg_advisory_xact_lock(8101820131131283)
