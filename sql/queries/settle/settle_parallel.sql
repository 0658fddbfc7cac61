-- Settles events of sagas whose rows keep their progress (parallel ones, and those with a step that
-- waits) in one statement that commits itself: all events of a saga, or none.
--   $1 worker
--   arrays with one element for each task:
--   $2 task  $3 epoch  $4 saga
--   $5 outcome, null = not called  $6 status code  $7 duration in microseconds  $8 message
--   $9 the interrupt that the planner knew
--   $10 attempt of the retry, null = the op is over  $11 counted attempts  $12 unknown before
--   $13 last outcome  $14 delay in microseconds  $15 the retry has the interrupt `unwind`
--   $16 reason of a stuck step  $17 its name
--   $18 the completion that the planner knew: it is recorded as the attempt after that of the call
--   $19 the next attempt waits so many microseconds for a completion
--   arrays with one element for each saga:
--   $20 saga  $21 the version that the plan is based on  $22 new progress, null = unchanged
--   $23 new status, null = unchanged; 'ending' and 'awaiting' as in settle.sql  $24 its reason
--   $25 the saga rolls back: its other actions are interrupted
--   $26 the step at which the deadline rolls the saga back
--   $27 the saga may still roll back: its tasks keep the deadline
--   arrays with one element for each new task:
--   $28 saga  $29 step  $30 op  $31 participant
--   $32 it waits so many microseconds for a completion: its first attempt is recorded as `ongoing`
--   $33 answers to keep, by task  $34 results, by saga
--   $35 the server that this worker knows, null = any: a version of another history says nothing
--     here
--
-- Two steps that settle at the same moment on two workers must neither lose the join nor run it
-- twice (docs/races.md, R7). The worker that locks the saga at the version of its plan wins, and
-- the other plans again. The version is only compared for equality, so it may start again at 0
-- after its largest value. The statement waits for no lock. As in settle.sql, every write comes
-- from rows that the locks returned.
with kept as materialized (
  -- Cast once: in an expression of a row, the cast would be repeated for every row.
  select $33::jsonb as answers, $34::jsonb as results
), input as materialized (
  select * from unnest($2::bigint[], $3::int[], $4::bigint[], $5::text[], $6::smallint[], $7::int[], $8::text[], $9::text[],
    $10::int[], $11::int[], $12::boolean[], $13::text[], $14::bigint[], $15::boolean[], $16::text[], $17::text[], $18::text[], $19::bigint[])
  as i(task_id, epoch, saga_id, outcome, status_code, duration_us, message, interrupt,
    next_attempt, next_counted, next_unknown, next_last_outcome, delay_us, next_unwinds, stuck_reason, step_name, completion, wait_us)
), planned as materialized (
  select * from unnest($20::bigint[], $21::int[], $22::text[], $23::text[], $24::text[], $25::boolean[], $26::smallint[], $27::boolean[])
  as p(saga_id, version, progress, saga_status, saga_reason, unwinds, overdue_step, keep_deadline)
), me as materialized (
  select id from pgsaga.worker
  where coalesce($35, pg_postmaster_start_time()) = pg_postmaster_start_time() and id = $1 and not dead for key share
), named as materialized (
  select exists (select from pgsaga.lane where participant > '') as are_lanes
), locked_saga as materialized (
  -- The version covers the completions: they are as they were when the plan was made.
  select p.*, s.deadline, s.completions
  from (select * from planned where exists (select from me)) p
  -- control: parallel-saga-lock
  cross join lateral (
    select id, deadline, completions from pgsaga.saga where id = p.saga_id and version = p.version and finished_at is null offset 0
    for no key update skip locked
  ) s
), locked as materialized (
  select i.*, t.row_id, t.step, t.op, t.attempt, t.format, t.bytes, t.lane, t.participant, t.wait, t.wait_ends_at
  from (select * from input where saga_id in (select saga_id from locked_saga)) i
  -- control: parallel-task-lock
  cross join lateral (
    select ctid as row_id, step, op, attempt, format, bytes, lane, participant, wait, wait_ends_at from pgsaga.task
    where id = i.task_id and worker = $1 and epoch = i.epoch and interrupt is not distinct from i.interrupt
      -- control: parallel-completion-fence
      and completion is not distinct from i.completion offset 0
    for update skip locked
  ) t
), whole as materialized (
  select a.saga_id
  from (select saga_id, count(*) as tasks from input group by saga_id) a
  join (select saga_id, count(*) as tasks from locked group by saga_id) b using (saga_id, tasks)
), saga as materialized (
  select * from locked_saga where saga_id in (select saga_id from whole)
), settled as materialized (
  select l.*, case when s.keep_deadline then s.deadline end as deadline from locked l join saga s using (saga_id)
), new_task as materialized (
  select n.saga_id, n.step, n.op, n.participant, n.wait_us * interval '1 microsecond' as wait, s.completions ->> (n.step || '/' || n.op) as completion
  from unnest($28::bigint[], $29::smallint[], $30::text[], $31::text[], $32::bigint[]) as n (saga_id, step, op, participant, wait_us)
  join saga s using (saga_id)
), recorded as (
  insert into pgsaga.history (saga_id, step, op, attempt, outcome, status_code, duration_us, message, worker, answer, kind)
  select saga_id, step, op, attempt, outcome, status_code, duration_us, message, $1, (select answers from kept) -> task_id::text, 'attempt'
  from settled where outcome is not null
  union all
  select saga_id, step, op, attempt + (outcome is not null)::int, completion, null, null, null, $1, null, 'attempt' from settled where completion is not null
  union all
  select saga_id, step, op, 1, 'ongoing', null, null, 'waits for a completion', $1, null, 'attempt' from new_task where wait is not null
  union all
  select saga_id, overdue_step, null, null, null, null, null, saga_reason, $1, null, 'deadline' from saga where overdue_step is not null
), removed as (
  delete from pgsaga.task t where t.ctid = any (array(select row_id from settled))
), again as (
  insert into pgsaga.task (saga_id, step, op, attempt, counted, unknown_before, last_outcome, format, bytes, lane,
                           participant, interrupt, deadline, epoch, wait, wait_ends_at, run_at)
  select saga_id, step, op, next_attempt, next_counted, next_unknown, next_last_outcome, format, bytes,
    case when (select are_lanes from named) then pgsaga.lane_of(lane, case when next_unwinds then '' else participant end) else lane end,
    participant, case when next_unwinds then 'unwind' end, deadline, epoch + (epoch < 2147483647)::int, w.wait, w.ends_at,
    greatest(clock_timestamp(), least(coalesce(w.ends_at, clock_timestamp() + delay_us * interval '1 microsecond'), deadline))
  from settled
  -- A task that goes back as it is keeps its wait.
  cross join lateral (
    select case when outcome is null then settled.wait else wait_us * interval '1 microsecond' end as wait,
      case when outcome is null then wait_ends_at else clock_timestamp() + wait_us * interval '1 microsecond' end as ends_at
  ) w
  where next_attempt is not null and stuck_reason is null
), queued as (
  insert into pgsaga.task (saga_id, step, op, attempt, last_outcome, format, bytes, lane, participant, deadline, completion, wait, wait_ends_at, run_at)
  select n.saga_id, n.step, n.op, case when n.wait is null then 1 else 2 end, case when n.wait is not null then 'ongoing' end, s.format, s.bytes,
    case when (select are_lanes from named) then pgsaga.lane_of(s.lane, n.participant) else s.lane end, n.participant,
    case when n.op = 'action' then s.deadline end, n.completion, n.wait, clock_timestamp() + n.wait,
    -- What was reported before its turn is planned at once.
    -- control: parallel-reported
    case when n.completion is null then greatest(clock_timestamp(), least(clock_timestamp() + coalesce(n.wait, interval '0'), case when n.op = 'action' then s.deadline end))
      else clock_timestamp() end
  from new_task n
  join (select distinct on (saga_id) saga_id, format, bytes, lane, deadline from settled) s using (saga_id)
  returning id
), others as materialized (
  select t.id
  from (select saga_id from saga where unwinds) s
  cross join lateral (
    select id from pgsaga.task
    where saga_id = s.saga_id and op = 'action' and interrupt is null and id <> all ($2) offset 0 for update skip locked
  ) t
), interrupted as (
  update pgsaga.task t
  set interrupt = 'unwind', run_at = case when t.worker is null then least(t.run_at, clock_timestamp()) else t.run_at end,
      -- Any worker may plan it, whoever serves its participant.
      lane = case when t.worker is null and (select are_lanes from named) then pgsaga.lane_of(t.lane, '') else t.lane end
  where t.id = any (array(select id from others))
), unstuck as (
  -- A stuck action may have taken effect, so it is compensated like the others.
  delete from pgsaga.stuck k where k.op = 'action' and k.saga_id = any (array(select saga_id from saga where unwinds))
), stuck as (
  insert into pgsaga.stuck (saga_id, step, reason, position, op, attempt, unknown_before, last_outcome, epoch)
  select saga_id, step_name, stuck_reason, step, op, next_attempt, next_unknown, next_last_outcome, epoch + (epoch < 2147483647)::int
  from settled where stuck_reason is not null
), changed as (
  update pgsaga.saga s
  -- control: parallel-version
  set version = case when s.version < 2147483647 then s.version + 1 else 0 end,
      progress = coalesce(p.progress, s.progress),
      status = case p.saga_status when 'ending' then s.ending when 'awaiting' then s.status else coalesce(p.saga_status, s.status) end,
      reason = case
        when p.saga_status is null or p.saga_status = 'awaiting' then s.reason
        when p.saga_status = 'stuck' then p.saga_reason
        when p.saga_status = 'succeeded' or p.saga_status = 'ending' and s.ending = 'succeeded' then null
        else coalesce(s.abort_reason, p.saga_reason) end,
      abort_reason = case when p.saga_status in ('aborting', 'failed', 'awaiting') then coalesce(s.abort_reason, p.saga_reason) else s.abort_reason end,
      result = (select results from kept) -> s.id::text,
      finished_at = case when p.saga_status in ('succeeded', 'failed', 'ending') then clock_timestamp() end
  from saga p
  -- Also if only tasks were replaced: a settle that unwinds the saga must see the new tasks, or it
  -- could not interrupt them.
  where s.id = any (array(select saga_id from saga)) and p.saga_id = s.id
)
select saga_id, (select count(*) from queued) as queued from saga
