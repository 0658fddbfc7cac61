-- An action was tried only after the action of the step before it had succeeded.
select s.gid, 'action of step ' || h.step || ' was tried (seq ' || h.seq || ') before step ' || h.step - 1 || ' had succeeded' as found
from pgsaga.history h join pgsaga.saga s on s.id = h.saga_id
where h.op = 'action' and h.step > 1
  and not exists (
    select from pgsaga.history p
    where p.saga_id = h.saga_id and p.step = h.step - 1 and p.op = 'action' and p.outcome = 'success' and p.seq < h.seq)
