-- Ends saga $1 as $2, for the reason $3.
-- `before` is read in the statement's snapshot, which the function's own changes are not in. Index:
-- saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.resolve($1, $2, $3) as after
