-- Rolls saga $1 back for the reason $2. `before` comes from the statement's snapshot, which does
-- not contain the function's own changes. Index: saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.abort($1, $2) as after
