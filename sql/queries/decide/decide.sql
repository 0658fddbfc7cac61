-- Takes decision $2 about saga $1: $3 its step, if any; $4 the comment. `before` comes from
-- the statement's snapshot, which does not contain the function's own changes. `unchanged`: the
-- decision had been taken already, so that nothing was recorded. Index: saga_gid_key.
select d.before, d.after, pgsaga.last_decision($1) is not distinct from d.last as unchanged
from (
  select b.before, b.last, pgsaga.decide($1, $2, $3, $4) as after
  from (
    select (select status from pgsaga.saga where gid = $1) as before, pgsaga.last_decision($1) as last offset 0
  ) b offset 0
) d
