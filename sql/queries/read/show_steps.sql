-- `pgsaga show`: the steps of saga $1 and what their ops came to: one row a step, at most 1,000.
-- Indexes: saga_pkey, and the primary key of the one partition of the history, which is read once.
-- `definition` is the step without the bodies and headers of its calls, which may be large; it is
-- empty where a row that was changed by hand has something else than an object.
with op as (
  select step, op, count(*) as tries, max(seq) as last_seq, max(seq) filter (where overrides) as sent_seq,
    coalesce(bool_or(effect = 'done'), false) as done, coalesce(bool_or(effect = 'maybe'), false) as unknown, bool_and(effect is not distinct from 'none') as refused
  from pgsaga.history left join pgsaga.outcome using (outcome)
  where saga_id = $1 and kind = 'attempt'
  group by step, op
), told as (
  select o.*, h.outcome, h.status_code, h.message, l.outcome as last_sent
  from op o join pgsaga.history h on h.saga_id = $1 and h.seq = o.last_seq
  left join pgsaga.history l on l.saga_id = $1 and l.seq = o.sent_seq
), skipped as (
  select distinct step from pgsaga.history where saga_id = $1 and kind = 'decision' and decision = 'skip'
)
select case when jsonb_typeof(e.body) = 'object' then e.body - '{payload,compensate_payload,headers}'::text[] else '{}' end::text as definition,
  left((e.body -> 'payload')::text, 61) as payload,
  coalesce(a.tries, 0) as action_tries, coalesce(a.done, false) as action_done, coalesce(a.unknown, false) as action_unknown,
  coalesce(a.refused, true) as action_refused, a.last_sent as action_last_sent,
  a.outcome as action_outcome, a.status_code as action_status_code, a.message as action_message,
  coalesce(c.tries, 0) as compensate_tries, coalesce(c.done, false) as compensate_done, coalesce(c.unknown, false) as compensate_unknown,
  coalesce(c.refused, true) as compensate_refused, c.last_sent as compensate_last_sent,
  c.outcome as compensate_outcome, c.status_code as compensate_status_code, c.message as compensate_message,
  k.step is not null as skipped
from pgsaga.saga s
cross join lateral jsonb_array_elements(case when jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end) with ordinality as e (body, position)
left join told a on a.step = e.position and a.op = 'action'
left join told c on c.step = e.position and c.op = 'compensate'
left join skipped k on k.step = e.position
where s.id = $1
order by e.position
