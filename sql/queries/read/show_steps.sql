-- `pgsaga show`: the steps of saga $1 with what their ops came to: one row a step, at most 1,000.
-- Indexes: saga_pkey, and the primary key of the one partition of the history, which is read once.
-- What a row that was changed by hand has instead of an array, a name or a number of a usual size
-- is left out or cut.
with op as (
  select step, op, count(*) as tries, max(seq) as last_seq, max(seq) filter (where outcome <> 'unsent') as sent_seq,
    bool_or(outcome = 'success') as done, bool_or(outcome = 'unknown') as unknown, bool_and(outcome in ('failure', 'unsent')) as refused
  from pgsaga.history where saga_id = $1 and kind = 'attempt'
  group by step, op
), told as (
  select o.*, h.outcome, h.status_code, h.message, l.outcome as last_sent
  from op o join pgsaga.history h on h.saga_id = $1 and h.seq = o.last_seq
  left join pgsaga.history l on l.saga_id = $1 and l.seq = o.sent_seq
), skipped as (
  select distinct step from pgsaga.history where saga_id = $1 and kind = 'decision' and decision = 'skip'
)
select coalesce(e.body ->> 'name', lpad(e.position::text, greatest(2, length(e.position::text)), '0')) as name,
  e.body ->> 'action' as action, e.body ->> 'compensate' as compensate, left((e.body -> 'payload')::text, 61) as payload,
  coalesce(e.body -> 'pivot' = 'true', false) as pivot,
  case when s.progress is not null and e.body ? 'after' then array(
    select a.name from jsonb_array_elements_text(case when jsonb_typeof(e.body -> 'after') = 'array' then e.body -> 'after' else '[]' end) as a (name)
    where a.name is not null) end as after,
  case when jsonb_typeof(e.body -> 'retry_interval_seconds') = 'number' then round(greatest(least((e.body -> 'retry_interval_seconds')::numeric, 1e9), -1e9), 6)::float8 end as retry_interval_seconds,
  case when jsonb_typeof(e.body -> 'retry_limit') = 'number' then round(greatest(least((e.body -> 'retry_limit')::numeric, 1e9), -1e9), 6)::float8 end as retry_limit,
  case when jsonb_typeof(e.body -> 'compensate_retry_limit') = 'number' then round(greatest(least((e.body -> 'compensate_retry_limit')::numeric, 1e9), -1e9), 6)::float8 end as compensate_retry_limit,
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
