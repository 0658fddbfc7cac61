-- `pgsaga show`: returns the history of saga $1 as about $2 lines, however long the history is.
--
-- Successive attempts of one op with the same outcome are a run. A run of more than three attempts
-- becomes two lines: its first attempt, and all others. A decision or the deadline ends every run,
-- so that the lines are in the order of the events. A quarter of the lines is for the beginning,
-- half for the end, and a quarter for the first attempts that did not succeed. The numbers show
-- what is left out: `place` is the place of a line among all lines, and `tries_so_far` and
-- `successes_so_far` count up to the end of the line. Reads only the last message of each line.
-- Index: the primary key of one partition of the history.
with event as (
  select seq, at, kind, step, op, attempt, outcome, status_code, duration_us,
    greatest(least((date_part('epoch', lead(at) over tries) - date_part('epoch', at)) * 1e6, 9e18), -9e18)::bigint - lead(duration_us) over tries as wait_us,
    count(*) filter (where kind <> 'attempt') over (order by seq) as part
  from pgsaga.history where saga_id = $1
  window tries as (partition by kind, step, op order by seq)
), numbered as (
  select *, row_number() over (partition by kind, step, op order by seq)
    - row_number() over (partition by kind, step, op, outcome, status_code, part order by seq) as run
  from event
), run as (
  select *, row_number() over (partition by kind, step, op, outcome, status_code, part, run order by seq) as nth,
    count(*) over (partition by kind, step, op, outcome, status_code, part, run) as length
  from numbered
), line as (
  select kind, step, op, outcome, status_code, min(seq) as first_seq, max(seq) as last_seq, min(at) as at, max(at) as until,
    count(*) filter (where kind = 'attempt') as tries, min(attempt) as attempt, max(attempt) as last_attempt,
    min(duration_us) as duration_us_min, max(duration_us) as duration_us_max, min(wait_us) as wait_us_min, max(wait_us) as wait_us_max
  from run
  group by kind, step, op, outcome, status_code, part, run, case when kind <> 'attempt' or length <= 3 or nth = 1 then nth else 0 end
), placed as (
  select *, row_number() over so_far as place, count(*) over () as lines,
    outcome is distinct from 'success' as notable,
    count(*) filter (where outcome is distinct from 'success') over so_far as nth_notable,
    (sum(tries) over so_far)::bigint as tries_so_far,
    (coalesce(sum(tries) filter (where outcome = 'success') over so_far, 0))::bigint as successes_so_far
  from line
  window so_far as (order by first_seq)
)
select p.kind, p.step, p.op, p.outcome, p.status_code, p.at, p.until, p.tries, p.attempt, p.last_attempt, p.duration_us_min,
  p.duration_us_max, p.wait_us_min, p.wait_us_max, p.place, p.tries_so_far, p.successes_so_far,
  h.message, h.decision, h.decided_by
from placed p join pgsaga.history h on h.saga_id = $1 and h.seq = p.last_seq
where p.lines <= $2 or p.place <= $2 / 4 or p.place > p.lines - $2 / 2 or p.notable and p.nth_notable <= $2 / 4
order by p.place
