-- Ends saga $1 with the status $2 and the comment $3. `before` comes from the statement's snapshot,
-- which does not contain the function's own changes. Index: saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.resolve($1, $2, $3) as after
