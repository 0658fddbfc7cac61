-- `pgsaga show --json`: the next $4 events of saga $1 from $2 on, up to $3, where the history ended
-- in the snapshot that the rest was read in. In pages, so that a slow reader holds back neither a
-- snapshot nor memory. Index: the partition's primary key.
select seq, at, kind, step, op, attempt, outcome, status_code, duration_us, message, worker, decision, decided_by, answer::text as answer
from pgsaga.history where saga_id = $1 and seq >= $2 and seq <= $3
order by seq limit $4
