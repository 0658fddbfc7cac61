-- Counts the op at which step $2 of saga $1 stands as done, for the reason $3.
-- `before` is read in the statement's snapshot, which the function's own changes are not in. Index:
-- saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.skip($1, $2, $3) as after
