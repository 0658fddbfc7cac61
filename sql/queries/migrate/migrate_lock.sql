-- Takes the lock of migrations until the transaction ends. roles.sql and printed scripts take the
-- same lock.
select pg_advisory_xact_lock(8101820131131283)
