-- Takes decision $2 about saga $1: $3 its step, if any; $4 the comment. `before` comes from
-- the statement's snapshot, which does not contain the function's own changes. Index: saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.decide($1, $2, $3, $4) as after
