-- The progress of an unfinished saga, where its row keeps it, says of each step what its tasks, its
-- stuck steps and the history say. More characters than a saga may have steps are named by
-- rows_can_be_read.
select s.gid, 'step ' || p.step || ' stands as "' || p.state || '": action '
  || case when h.done then 'done' else 'not done' end || ', compensation ' || case when h.undone then 'done' else 'not done' end
  || ', tasks: ' || coalesce(t.ops, 'none') || ', stuck: ' || coalesce(k.ops, 'none') as found
from (
  -- Once a saga: a large value is decompressed at every access.
  select id, gid, steps, left(progress, 1001) as progress,
    case when jsonb_typeof(steps) = 'array' then jsonb_array_length(steps) else 0 end as step_count
  from pgsaga.saga where progress is not null and finished_at is null and ending is null
  offset 0
) s
cross join lateral (select n as step, substr(s.progress, n, 1) as state from generate_series(1, least(length(s.progress), 1000)) n) p
left join (
  select saga_id, step, string_agg(op, ', ') as ops from pgsaga.task group by saga_id, step
) t on t.saga_id = s.id and t.step = p.step
left join (
  select saga_id, position, string_agg(op, ', ') as ops from pgsaga.stuck group by saga_id, position
) k on k.saga_id = s.id and k.position = p.step
cross join lateral (
  select coalesce(bool_or(kind = 'attempt' and op = 'action' and outcome = 'success' or decision = 'skip'), false) as done,
    coalesce(bool_or(kind = 'attempt' and op = 'compensate' and outcome = 'success' or decision = 'skip'), false) as undone,
    coalesce(bool_or(kind = 'attempt' and op = 'action'), false) as tried,
    coalesce(bool_or(kind = 'completion' and op = 'action' and outcome = 'success'), false) as reported
  from pgsaga.history where saga_id = s.id and step = p.step
) h
where length(s.progress) <> s.step_count
  or not case p.state
    when '.' then not h.tried and t.ops is null and k.ops is null
    when 'r' then h.reported and not h.tried and t.ops is null and k.ops is null
    when 'a' then t.ops = 'action' and k.ops is null
    when 'd' then h.done and t.ops is null and k.ops is null
    when 'v' then t.ops is null and k.ops is null
    when 'm' then t.ops is null and k.ops is null
    when 'c' then t.ops = 'compensate' and k.ops is null
    when 'u' then (h.undone or not s.steps -> (p.step - 1) ? 'compensate') and t.ops is null and k.ops is null
    when 's' then k.ops = 'action' and t.ops is null
    when 'x' then k.ops = 'compensate' and t.ops is null
    else false end
