-- Returns the parts of the sagas $1 that a claim leaves out: the steps of a parallel saga, once
-- however many of its tasks were claimed, and the answers that references are resolved from.
-- Indexes: saga_pkey, and the primary key of one partition of the history.
select s.id, case when s.progress is not null then s.steps::text end as steps, s.result_mapping::text as result_mapping,
  case when s.answers or s.progress is not null then (
    select jsonb_object_agg(h.step::text, h.answer)::text from pgsaga.history h where h.saga_id = s.id and h.step is not null and h.answer is not null
  ) end as answers
from unnest($1::bigint[]) as i (saga_id)
cross join lateral (
  -- control: details-loop
  select id, progress, steps, result_mapping, answers from pgsaga.saga where id = i.saga_id offset 0
) s
