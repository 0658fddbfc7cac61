-- Retries the stuck steps of saga $1, or the task that waits for its next attempt, with the comment
-- $2; under a fresh key if $3. `before` comes from the statement's snapshot, which does not contain
-- the function's own changes. Index: saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.retry($1, $2, $3) as after
