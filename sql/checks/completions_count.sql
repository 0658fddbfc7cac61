-- The first completion of an op counts. A task bears what was reported of its op, an op that came
-- to its turn has an attempt with that outcome, and nobody reports another one unless a person's
-- decision came between.
select s.gid, b.found
from (
  select t.saga_id, 'task ' || t.id || ' bears ' || coalesce(t.completion, 'no completion') || ', and step ' || t.step || ' ' || t.op || ' was reported as '
    || coalesce(s.completions ->> (t.step || '/' || t.op), 'nothing') as found
  from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id
  where t.completion::text is distinct from s.completions ->> (t.step || '/' || t.op)
  union all
  select c.saga_id, 'step ' || c.step || ' ' || c.op || ' was reported as ' || c.outcome || ' (seq ' || c.seq || '), and no attempt has this outcome'
  from pgsaga.history c join pgsaga.saga s on s.id = c.saga_id
  where c.kind = 'completion' and c.outcome <> 'ongoing' and s.finished_at is not null
    and exists (select from pgsaga.history h where h.saga_id = c.saga_id and h.kind = 'attempt' and h.step = c.step and h.op = c.op)
    and not exists (
      select from pgsaga.history h
      where h.saga_id = c.saga_id and h.kind = 'attempt' and h.step = c.step and h.op = c.op and h.outcome = c.outcome and h.seq > c.seq)
    and not exists (select from pgsaga.history d where d.saga_id = c.saga_id and d.decision is not null)
  union all
  select c.saga_id, 'step ' || c.step || ' ' || c.op || ' was reported as ' || c.outcome || ' (seq ' || c.seq || ') and again (seq ' || x.seq || ')'
  from pgsaga.history c join pgsaga.history x using (saga_id, step, op)
  where c.kind = 'completion' and c.outcome <> 'ongoing' and x.kind = 'completion' and x.seq > c.seq
    and not exists (
      select from pgsaga.history d
      where d.saga_id = c.saga_id and d.decision in ('retry', 'skip', 'abort') and d.seq between c.seq and x.seq)
) b
join pgsaga.saga s on s.id = b.saga_id
