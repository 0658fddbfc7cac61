-- An action was tried only after every step that it waits for had succeeded (or a person had it
-- count as done).
select s.gid, 'action of step ' || h.step || ' was tried (seq ' || h.seq || ') before step ' || o.waits_for || ' had succeeded' as found
from pgsaga.history h
join pgsaga.saga s on s.id = h.saga_id
join pgsaga.step_order o on o.saga_id = h.saga_id and o.step = h.step
where h.kind = 'attempt' and h.op = 'action'
  and not exists (
    select from pgsaga.history p
    where p.saga_id = h.saga_id and p.step = o.waits_for and p.seq < h.seq
      and (p.kind = 'attempt' and p.op = 'action' and p.outcome = 'success' or p.decision = 'skip'))
