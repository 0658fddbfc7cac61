-- After a success is in the history, that op of that step is never tried or queued again.
select s.gid, 'step ' || h.step || ' ' || h.op || ' succeeded (seq ' || h.seq || ') and was ' || a.what as found
from pgsaga.history h
join pgsaga.saga s on s.id = h.saga_id
cross join lateral (
  select 'tried again (seq ' || x.seq || ')' as what from pgsaga.history x
  where x.saga_id = h.saga_id and x.step = h.step and x.op = h.op and x.seq > h.seq
  union all
  select 'queued again (task ' || t.id || ')' from pgsaga.task t
  where t.saga_id = h.saga_id and t.step = h.step and t.op = h.op
) a
where h.kind = 'attempt' and h.outcome = 'success'
