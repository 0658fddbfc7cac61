-- `pgsaga ui`: returns the last $3 events of saga $1 up to the event $2. Of each answer it returns
-- the first $4 characters and the length. Index: the partition's primary key, backwards.
select seq, at, kind, step, op, attempt, outcome, status_code, duration_us, message, worker, decision, decided_by,
  left(answer, $4) as answer, length(answer) as answer_chars
from (
  select seq, at, kind, step, op, attempt, outcome, status_code, duration_us, message, worker, decision, decided_by, answer::text as answer
  from pgsaga.history where saga_id = $1 and seq <= $2
  order by seq desc limit $3
) e
order by seq desc
