-- Tries the stuck steps of saga $1 again, or what waits for its next try; $2 comment, $3 under a
-- fresh key. `before` is read in the statement's snapshot, which the function's own changes are not
-- in. Index: saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.retry($1, $2, $3) as after
