-- One saga's status, by the unique index saga_gid_key. No row: no such gid, or not committed yet.
-- $1 gid
select status, reason, result::text from pgsaga.saga where gid = $1
