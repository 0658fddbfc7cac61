-- Only the participant's own answer overrides that it accepted an op: after a try that ended
-- ongoing or unknown, no refusal is recorded that has no status code of an answer, and that nobody
-- has reported by a completion.
select s.gid, h.op || ' of step ' || h.step || ' was refused without an answer (seq ' || h.seq || ') after it may have taken effect (seq '
  || p.seq || ')' as found
from pgsaga.history h
join pgsaga.saga s on s.id = h.saga_id
cross join lateral (
  select min(b.seq) as seq from pgsaga.history b
  where b.saga_id = h.saga_id and b.step = h.step and b.op = h.op and b.seq < h.seq 
    and b.outcome in (select o.outcome from pgsaga.outcome o where o.effect in ('pending', 'maybe'))
) p
where h.kind = 'attempt' and h.outcome = 'failure' and h.status_code is null and p.seq is not null
  and not exists (
    select from pgsaga.history c
    where c.saga_id = h.saga_id and c.step = h.step and c.op = h.op and c.kind = 'completion' and c.outcome = 'failure' and c.seq < h.seq)
