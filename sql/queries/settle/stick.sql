-- Makes sagas stuck if a row of theirs holds a value that no INSERT accepts, so that workers cannot
-- read the row.
--   $1 the worker that has claimed the tasks, null = no worker
--   arrays with one element for each task: $2 task  $3 epoch  $4 saga  $5 the fault, in words
--   $6 the server that this worker knows, null = any: on another server nothing is changed
--     (worker/engine/src/liveness/identity.rs)
-- Returns for each task whether its saga is stuck now, and `hopeless`: there is no open saga that
-- could become stuck. Returns nothing for a task whose saga another session has locked.
--
-- A person repairs the row or ends the saga. A retry continues with the next attempt after those of
-- the history, because the task's own columns are not trusted. If a person has already ended the
-- saga (`ending`), the task is deleted, and the last task ends the saga.
--
-- Locks the saga, then the task, and waits for neither. The row that the lock returns may be newer
-- than the snapshot, because an abort interrupts a task without raising its epoch. Tasks are
-- therefore deleted by id, which finds the newer version. A name is cut, because no index can hold
-- a long one. Indexes: task_pkey, saga_pkey, and the primary key of one partition of the history.
with input as materialized (
  select * from unnest($2::bigint[], $3::int[], $4::bigint[], $5::text[]) as i (task_id, epoch, saga_id, why)
), locked_saga as materialized (
  select s.*
  from (select distinct saga_id from input where coalesce($6, pg_postmaster_start_time()) = pg_postmaster_start_time()) i
  cross join lateral (
    select id, steps, ending from pgsaga.saga where id = i.saga_id and finished_at is null offset 0
    for no key update skip locked
  ) s
), locked as materialized (
  select t.*, i.why, s.ending,
    left(coalesce(s.steps -> (t.step - 1) ->> 'name', lpad(t.step::text, greatest(2, length(t.step::text)), '0')), 200) as step_name
  from input i
  join locked_saga s on s.id = i.saga_id
  cross join lateral (
    select id, saga_id, step, op, epoch from pgsaga.task
    where id = i.task_id and saga_id = i.saga_id and worker is not distinct from $1 and epoch = i.epoch offset 0
    for update skip locked
  ) t
), removed as (
  delete from pgsaga.task t where t.id = any (array(select id from locked))
), stuck as (
  insert into pgsaga.stuck (saga_id, step, reason, position, op, attempt, unknown_before, last_outcome, epoch, unreadable)
  select l.saga_id, l.step_name, l.step_name || ': ' || l.why, l.step, l.op, h.tries + 1, h.unknown, h.last_outcome,
    least(greatest(l.epoch, 0), 1000000000), true
  from locked l
  cross join lateral (
    select count(*)::int as tries, coalesce(bool_or(o.effect = 'maybe'), false) as unknown,
      (array_agg(outcome order by seq desc) filter (where o.overrides))[1] as last_outcome
    from pgsaga.history left join pgsaga.outcome o using (outcome)
    where saga_id = l.saga_id and step = l.step and op = l.op and kind = 'attempt'
  ) h
  where l.ending is null
  -- If a step has two tasks, the first one decides.
  on conflict (saga_id, step) do nothing
), touched as materialized (
  select l.saga_id, min(l.step_name || ': ' || l.why) as reason, min(l.ending) as ending,
    not exists (select from pgsaga.task t where t.saga_id = l.saga_id and t.id <> all (array(select id from locked))) as is_last
  from locked l group by l.saga_id
), changed as (
  update pgsaga.saga s
  set status = case when l.ending is null then 'stuck' when l.is_last then l.ending else s.status end,
    reason = case when l.ending is null then l.reason when l.is_last and l.ending = 'succeeded' then null else s.reason end,
    finished_at = case when l.ending is not null and l.is_last then clock_timestamp() end,
    version = case when s.version < 2147483647 then s.version + 1 else 0 end,
    progress = case when length(s.progress) <= 1000 then coalesce((
      select string_agg(
        coalesce((select case when l.ending is not null then 'm' when k.op = 'action' then 's' else 'x' end
                  from locked k where k.saga_id = s.id and k.step = n limit 1),
                 substr(s.progress, n, 1)), '' order by n)
      from generate_series(1, length(s.progress)) n), s.progress)
      else s.progress end
  from touched l
  where s.id = l.saga_id
)
select i.task_id as id, exists (select from locked l where l.id = i.task_id) as stuck,
  not exists (select from pgsaga.saga s where s.id = i.saga_id and s.finished_at is null) as hopeless
from input i
