-- Takes the decision $2 about saga $1: $3 the step of a skip, $4 the comment.
-- `before` is read in the statement's snapshot, which the function's own changes are not in. Index:
-- saga_gid_key.
select (select status from pgsaga.saga where gid = $1) as before, pgsaga.decide($1, $2, $3, $4) as after
