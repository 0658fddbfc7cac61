-- `pgsaga show`: the history of saga $1, in order. Index: the partition's primary key.
select seq, at, kind, step, op, attempt, outcome, status_code, duration_us, message, worker
from pgsaga.history where saga_id = $1 order by seq
