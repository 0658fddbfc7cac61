-- What was called and decided in saga $1, in order.
select step, case when kind = 'attempt' then op else coalesce(decision, kind) end as what,
  attempt, outcome, message
from pgsaga.saga_timeline where gid = $1 order by seq
