-- `pgsaga show --json`: returns the next $4 events of saga $1, from event $2 to event $3. $3 is the
-- end of the history in the snapshot that show_saga read. Pages keep a slow reader from holding a
-- snapshot or memory. Index: the partition's primary key.
select seq, at, kind, step, op, attempt, outcome, status_code, duration_us, message, worker, decision, decided_by, answer::text as answer
from pgsaga.history where saga_id = $1 and seq >= $2 and seq <= $3
order by seq limit $4
