-- Settles a group of sequential sagas: records each outcome and does what the planner decided, in
-- one statement that commits itself.
--   $1 worker
--   arrays with one element for each task, ascending by saga; an array of nulls may be null itself:
--   $2 task  $3 epoch  $4 saga
--   $5 outcome, null = not called  $6 status code  $7 duration in microseconds  $8 message
--   $9 advance in place: the next step's action takes the same row (a HOT update that does not
--     change the saga's row)
--   $10 next step (null for an advance in place)  $11 next op  $12 its attempt
--   $13 counted attempts  $14 unknown before  $15 last outcome
--   $16 delay in microseconds; null = this worker claims the next task at once (the chain), unless
--     the queue is paused
--   $17 the saga's new status, null = unchanged; 'ending' = as a person decided; 'awaiting' = the
--     saga rolls back unless its pivot succeeds
--   $18 its reason  $19 name of the step, for stuck sagas
--   $20 the interrupt that the planner knew  $21 participant of the next task
--   $22 the next task has the interrupt `unwind`  $23 the next task keeps the deadline
--   $24 the deadline rolls the saga back
--   $25 the completion that the planner knew: it is recorded as the attempt after that of the call
--   $26 the next attempt waits so many microseconds for a completion
--   $27 answers to keep, by task  $28 results, by saga
--   $29 the server that this worker knows, null = any: on another server nothing is settled
--     (worker/engine/src/liveness/identity.rs)
--
-- The order of locks is worker, saga, task. The statement waits for no saga and no task (SKIP
-- LOCKED): what another session has locked is left out and settled with the next group
-- (docs/races.md, R8). Every write comes from `settled`, the rows that both locks returned, never
-- from the input (docs/races.md, R6). The fence (worker, epoch, interrupt, completion) pins the
-- version of the task row, so that the later lookups by ctid find the locked row. Sagas are looked
-- up by id, because the locked version may be newer than the snapshot. The laterals with OFFSET 0
-- start from the input whatever the statistics say. Indexes: saga_pkey, task_pkey.
with kept as materialized (
  -- Cast once: in an expression of a row, the cast would be repeated for every row.
  select $27::jsonb as answers, $28::jsonb as results
), input as materialized (
  select * from unnest($2::bigint[], $3::int[], $4::bigint[], $5::text[], $6::smallint[], $7::int[], $8::text[],
    $9::boolean[], $10::smallint[], $11::text[], $12::int[], $13::int[], $14::boolean[], $15::text[], $16::bigint[],
    $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::boolean[], $23::boolean[], $24::boolean[], $25::text[], $26::bigint[])
  as i(task_id, epoch, saga_id, outcome, status_code, duration_us, message,
    in_place, next_step, next_op, next_attempt, next_counted, next_unknown, next_last_outcome, delay_us,
    saga_status, saga_reason, step_name, interrupt, next_participant, next_unwinds, keep_deadline, overdue, completion, wait_us)
), me as materialized (
  select id from pgsaga.worker
  -- control: settle-worker
  where coalesce($29, pg_postmaster_start_time()) = pg_postmaster_start_time() and id = $1 and not dead for key share
), paused as materialized (
  select coalesce(array_agg(l.id), '{}') as lanes
  from pgsaga.lane l join pgsaga.paused_queue q on q.name = l.queue
), named as materialized (
  select exists (select from pgsaga.lane where participant > '') as are_lanes
), locked_saga as materialized (
  select s.id
  from (select saga_id from input where not in_place and exists (select from me)) i
  -- control: settle-saga-lock
  cross join lateral (
    select id from pgsaga.saga where id = i.saga_id and finished_at is null offset 0 for no key update skip locked
  ) s
), settled as materialized (
  -- Columns that many scans filter by come first, because reading a row stops at the last column
  -- that is needed.
  -- control: settle-outcome
  select t.row_id, i.in_place, i.saga_status, i.saga_id, i.overdue, i.outcome, i.task_id,
    t.step, t.op, t.attempt, i.status_code, i.duration_us, i.message, i.next_step, i.saga_reason, i.step_name,
    i.next_op, i.next_attempt, i.next_counted, i.next_unknown, i.next_last_outcome, i.delay_us, i.next_participant,
    i.next_unwinds, i.keep_deadline, i.epoch, t.format, t.bytes, t.lane, t.deadline,
    i.completion,
    -- A task that goes back as it is keeps its wait.
    case when i.outcome is null and i.next_step = t.step and i.next_op = t.op then t.wait else i.wait_us * interval '1 microsecond' end as wait,
    case when i.outcome is null and i.next_step = t.step and i.next_op = t.op then t.wait_ends_at
      else clock_timestamp() + i.wait_us * interval '1 microsecond' end as wait_ends_at
  -- control: settle-locked-sagas
  from (select * from input where exists (select from me)
        and (in_place or saga_id in (select id from locked_saga))) i
  -- control: settle-task-fence
  cross join lateral (
    select ctid as row_id, step, op, attempt, format, bytes, lane, deadline, wait, wait_ends_at from pgsaga.task
    where id = i.task_id and worker = $1 and epoch = i.epoch and interrupt is not distinct from i.interrupt
      -- control: settle-completion-fence
      and completion is not distinct from i.completion offset 0
    for update skip locked
  ) t
), recorded as (
  insert into pgsaga.history (saga_id, step, op, attempt, outcome, status_code, duration_us, message, worker, answer, kind)
  select saga_id, step, op, attempt, outcome, status_code, duration_us, message, $1, (select answers from kept) -> task_id::text, 'attempt'
  from settled where outcome is not null
  union all
  select saga_id, step, op, attempt + (outcome is not null)::int, completion, null, null, null, $1, null, 'attempt' from settled where completion is not null
  union all
  select saga_id, step, null, null, null, null, null, saga_reason, $1, null, 'deadline' from settled where overdue
), advanced as (
  update pgsaga.task t
  set step = least(t.step, 32766) + 1, attempt = 1, counted = 0, unknown_before = false, last_outcome = null,
      -- control: settle-advance-epoch
      lost = 0, lost_isolated = 0, isolated = false, epoch = t.epoch + (t.epoch < 2147483647)::int,
      -- The participant of the next step is not known here. An empty name never counts as blocked.
      participant = case when t.lane = any ((select lanes from paused)::int[]) then '' else t.participant end,
      lane = case when t.lane = any ((select lanes from paused)::int[]) and (select are_lanes from named) then pgsaga.lane_of(t.lane, '') else t.lane end,
      worker = case when t.lane = any ((select lanes from paused)::int[]) then null else t.worker end,
      -- A released task gets the current time, because a watermark could have passed its old one.
      -- Without a release run_at does not change, so that the update stays HOT.
      -- control: settle-paused-time
      run_at = case when t.lane = any ((select lanes from paused)::int[]) then clock_timestamp() else t.run_at end
  where t.ctid = any (array(select row_id from settled where in_place))
  returning t.id, t.saga_id, t.worker
), removed as (
  -- control: settle-removes
  delete from pgsaga.task t where t.ctid = any (array(select row_id from settled where not in_place))
), queued as (
  insert into pgsaga.task (saga_id, step, op, attempt, counted, unknown_before, last_outcome, format, bytes, lane,
                           participant, interrupt, deadline, worker, epoch, wait, wait_ends_at, run_at)
  select saga_id, next_step, next_op, next_attempt, next_counted, next_unknown, next_last_outcome, format, bytes,
    -- A task that this worker keeps stays in its lane, and so does one that any worker may plan.
    case when delay_us is null or not (select are_lanes from named) then lane
      else pgsaga.lane_of(lane, case when next_unwinds then '' else next_participant end) end,
    next_participant, case when next_unwinds then 'unwind' end, case when keep_deadline then deadline end,
    -- control: settle-next-epoch
    case when delay_us is null and lane <> all ((select lanes from paused)::int[]) then $1 end, epoch + (epoch < 2147483647)::int, wait, wait_ends_at,
    -- Never before the current time, which a watermark could have passed (docs/races.md, R18).
    -- control: settle-next-time
    greatest(clock_timestamp(), least(coalesce(wait_ends_at, clock_timestamp() + coalesce(delay_us, 0) * interval '1 microsecond'),
                                      case when keep_deadline then deadline end))
  from settled where not in_place and next_step is not null and saga_status is distinct from 'stuck'
  returning id, saga_id, worker
), succeeded as (
  update pgsaga.saga s set status = 'succeeded', finished_at = clock_timestamp(), result = (select results from kept) -> s.id::text
  -- control: settle-finishes
  where s.id = any (array(select saga_id from settled where saga_status = 'succeeded'))
), changed as (
  update pgsaga.saga s
  set status = case t.saga_status when 'ending' then s.ending when 'awaiting' then s.status else t.saga_status end,
      reason = case
        when t.saga_status = 'stuck' then t.saga_reason
        when t.saga_status = 'awaiting' or t.saga_status = 'ending' and s.ending = 'succeeded' then null
        else coalesce(s.abort_reason, t.saga_reason, s.reason) end,
      abort_reason = case when t.saga_status = 'stuck' then s.abort_reason else coalesce(s.abort_reason, t.saga_reason) end,
      finished_at = case when t.saga_status in ('failed', 'ending') then clock_timestamp() end
  from settled t
  -- control: settle-changes
  where s.id = any (array(select saga_id from settled where saga_status <> 'succeeded'))
    and t.saga_id = s.id and t.saga_status <> 'succeeded'
), stuck as (
  insert into pgsaga.stuck (saga_id, step, reason, position, op, attempt, unknown_before, last_outcome, epoch)
  select saga_id, step_name, saga_reason, next_step, next_op, next_attempt, next_unknown, next_last_outcome, epoch + (epoch < 2147483647)::int
  from settled where saga_status = 'stuck'
)
select id as task_id, saga_id, null::bigint as queued_id, worker is not null as chained, ((select answers from kept) -> id::text)::text as answer
from advanced
union all
select task_id, saga_id, null, false, ((select answers from kept) -> task_id::text)::text from settled where not in_place
union all
select null, saga_id, id, worker is not null, null from queued
