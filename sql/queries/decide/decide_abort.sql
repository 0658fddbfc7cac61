-- Turns saga $1 back, for the reason $2.
-- `before` is read in the statement's snapshot, which the function's own changes are not in. Index:
-- saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.abort($1, $2) as after
