-- After its pivot has succeeded a saga compensates nothing.
select s.gid, 'the pivot, step ' || p.step || ', succeeded, and step ' || u.step || ' was compensated (seq ' || u.seq || ')' as found
from pgsaga.saga s
cross join lateral (
  select position as step from jsonb_array_elements(case when jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end) with ordinality as e (body, position) where body -> 'pivot' = 'true'
) p
join pgsaga.history h on h.saga_id = s.id and h.step = p.step and h.kind = 'attempt' and h.op = 'action' and h.outcome = 'success'
join pgsaga.history u on u.saga_id = s.id and u.op = 'compensate'
where s.steps @> '[{"pivot": true}]'
