-- Returns the status of saga $1. Returns no row if there is no such gid, or its transaction has not
-- committed. Index: saga_gid_key.
select status, reason, result::text from pgsaga.saga where gid = $1
