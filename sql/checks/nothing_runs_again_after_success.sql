-- After a success is in the history, that op of that step is never tried or queued again. A
-- completion is recorded after the call that it decides about.
-- Two plain joins: a lateral over the tasks would read the whole hot table once for every success.
select s.gid, 'step ' || a.step || ' ' || a.op || ' succeeded (seq ' || a.seq || ') and was ' || a.what as found
from (
  select h.saga_id, h.step, h.op, h.seq, 'tried again (seq ' || x.seq || ')' as what
  from pgsaga.history h join pgsaga.history x using (saga_id, step, op)
  where h.kind = 'attempt' and h.outcome = 'success' and x.kind = 'attempt' and x.seq > h.seq
    and not exists (
      select from pgsaga.history c
      where c.saga_id = h.saga_id and c.step = h.step and c.op = h.op and c.kind = 'completion' and c.outcome = x.outcome and c.seq < x.seq)
  union all
  select h.saga_id, h.step, h.op, h.seq, 'queued again (task ' || t.id || ')'
  from pgsaga.task t join pgsaga.history h using (saga_id, step, op)
  where h.kind = 'attempt' and h.outcome = 'success'
    and not exists (
      select from pgsaga.history c
      where c.saga_id = h.saga_id and c.step = h.step and c.op = h.op and c.kind = 'completion' and c.outcome = 'failure')
) a
join pgsaga.saga s on s.id = a.saga_id
