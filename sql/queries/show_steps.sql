-- `pgsaga show`: the steps of saga $1 with what their ops came to: one row a step, at most 1,000. Indexes: saga_pkey, and the
-- primary key of the one partition of the history, which is read once.
with op as (
  select step, op, count(*) as tries, max(seq) as last_seq, bool_or(outcome = 'success') as done, bool_or(outcome = 'unknown') as doubtful
  from pgsaga.history where saga_id = $1 and kind = 'attempt'
  group by step, op
), told as (
  select o.*, h.outcome, h.status_code, h.message from op o join pgsaga.history h on h.saga_id = $1 and h.seq = o.last_seq
), skipped as (
  select distinct step from pgsaga.history where saga_id = $1 and kind = 'decision' and decision = 'skip'
)
select coalesce(e.body ->> 'name', lpad(e.position::text, greatest(2, length(e.position::text)), '0')) as name,
  e.body ->> 'action' as action, e.body ->> 'compensate' as compensate, left((e.body -> 'payload')::text, 61) as payload,
  coalesce(e.body -> 'pivot' = 'true', false) as pivot,
  case when s.progress is not null and e.body ? 'after' then array(select jsonb_array_elements_text(e.body -> 'after')) end as after,
  (e.body ->> 'retry_interval_seconds')::float8 as retry_interval_seconds,
  (e.body ->> 'retry_limit')::float8 as retry_limit, (e.body ->> 'compensate_retry_limit')::float8 as compensate_retry_limit,
  coalesce(a.tries, 0) as action_tries, coalesce(a.done, false) as action_done, coalesce(a.doubtful, false) as action_doubtful,
  a.outcome as action_outcome, a.status_code as action_status_code, a.message as action_message,
  coalesce(c.tries, 0) as compensate_tries, coalesce(c.done, false) as compensate_done, coalesce(c.doubtful, false) as compensate_doubtful,
  c.outcome as compensate_outcome, c.status_code as compensate_status_code, c.message as compensate_message,
  k.step is not null as skipped
from pgsaga.saga s
cross join lateral jsonb_array_elements(s.steps) with ordinality as e (body, position)
left join told a on a.step = e.position and a.op = 'action'
left join told c on c.step = e.position and c.op = 'compensate'
left join skipped k on k.step = e.position
where s.id = $1
order by e.position
