-- Makes the sagas of tasks stuck, because a row of theirs cannot be read: it holds a value that no INSERT takes.
--   $1 the worker that has claimed the tasks, null = nobody has
--   arrays, one element a task: $2 task  $3 epoch  $4 what is wrong, in words
-- Answers with the tasks whose saga is stuck now. What somebody else has locked, and a task whose saga is gone or has
-- finished, is left out.
--
-- A person mends the row or ends the saga. A retry goes on from the next try that the history gives: what the task's own
-- columns said is not believed. Locks the saga, then the task, and waits for neither. Indexes: task_pkey, saga_pkey, and
-- the primary key of one partition of the history.
with input as materialized (
  select i.task_id, i.epoch, i.why, t.saga_id
  from unnest($2::bigint[], $3::int[], $4::text[]) as i (task_id, epoch, why)
  cross join lateral (
    select saga_id from pgsaga.task where id = i.task_id and worker is not distinct from $1 and epoch = i.epoch offset 0
  ) t
), locked_saga as materialized (
  select s.*
  from (select distinct saga_id from input) i
  cross join lateral (
    select id, steps from pgsaga.saga where id = i.saga_id and finished_at is null offset 0
    for no key update skip locked
  ) s
), locked as materialized (
  select t.*, i.why,
    coalesce(s.steps -> (t.step - 1) ->> 'name', lpad(t.step::text, greatest(2, length(t.step::text)), '0')) as step_name
  from input i
  join locked_saga s on s.id = i.saga_id
  cross join lateral (
    select ctid as row_id, id, saga_id, step, op, epoch from pgsaga.task
    where id = i.task_id and worker is not distinct from $1 and epoch = i.epoch offset 0
    for update skip locked
  ) t
), removed as (
  delete from pgsaga.task t where t.ctid = any (array(select row_id from locked))
), stuck as (
  insert into pgsaga.stuck (saga_id, step, reason, position, op, attempt, unknown_before, last_outcome, epoch, unreadable)
  select l.saga_id, l.step_name, l.step_name || ': ' || l.why, l.step, l.op, h.tries + 1, h.unknown, h.last_outcome,
    least(greatest(l.epoch, 0), 1000000000), true
  from locked l
  cross join lateral (
    select count(*)::int as tries, coalesce(bool_or(outcome = 'unknown'), false) as unknown,
      (array_agg(outcome order by seq desc) filter (where outcome <> 'unsent'))[1] as last_outcome
    from pgsaga.history where saga_id = l.saga_id and step = l.step and op = l.op and kind = 'attempt'
  ) h
  -- Two tasks of one step: the second says no more.
  on conflict (saga_id, step) do nothing
), changed as (
  update pgsaga.saga s
  set status = 'stuck', reason = l.reason,
    -- A person who ended it meanwhile decides again: nothing of it is in flight any more.
    ending = null,
    version = case when s.version < 2147483647 then s.version + 1 else 0 end,
    progress = case when length(s.progress) <= 1000 then (
      select string_agg(
        coalesce((select case k.op when 'action' then 's' else 'x' end from locked k where k.saga_id = s.id and k.step = n limit 1),
                 substr(s.progress, n, 1)), '' order by n)
      from generate_series(1, length(s.progress)) n)
      else s.progress end
  from (select saga_id, min(step_name || ': ' || why) as reason from locked group by saga_id) l
  where s.id = l.saga_id
)
select id from locked
