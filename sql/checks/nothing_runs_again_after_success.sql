-- After a success is in the history, that op of that step is never tried or queued again.
-- Two plain joins: a lateral over the tasks would read the whole hot table once for every success.
select s.gid, 'step ' || a.step || ' ' || a.op || ' succeeded (seq ' || a.seq || ') and was ' || a.what as found
from (
  select h.saga_id, h.step, h.op, h.seq, 'tried again (seq ' || x.seq || ')' as what
  from pgsaga.history h join pgsaga.history x using (saga_id, step, op)
  where h.kind = 'attempt' and h.outcome = 'success' and x.seq > h.seq
  union all
  select h.saga_id, h.step, h.op, h.seq, 'queued again (task ' || t.id || ')'
  from pgsaga.task t join pgsaga.history h using (saga_id, step, op)
  where h.kind = 'attempt' and h.outcome = 'success'
) a
join pgsaga.saga s on s.id = a.saga_id
