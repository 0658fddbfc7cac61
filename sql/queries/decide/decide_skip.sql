-- Counts the current op of step $2 of saga $1 as done, with the comment $3. `before` comes from the
-- statement's snapshot, which does not contain the function's own changes. Index: saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.skip($1, $2, $3) as after
