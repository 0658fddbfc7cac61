-- Settles a group: records each outcome and does what the planner decided, in one statement that commits itself.
--   $1 worker
--   arrays, one element a task, ascending by saga:
--   $2 task  $3 epoch  $4 saga  $5 outcome  $6 status code  $7 duration in microseconds  $8 message
--   $9 in place: the next step's action in the same row (a HOT update that leaves the saga row alone)
--   $10 next step  $11 next op  $12 its attempt  $13 tries counted  $14 unknown before  $15 last outcome
--   $16 delay in microseconds; null = claimed by this worker at once (the chain)
--   $17 the saga's new status, null = unchanged  $18 its reason  $19 name of the step, for stuck sagas
--
-- The order of locks is worker, saga, task. Nothing here waits for a saga or a task (SKIP LOCKED): what somebody else
-- has locked is left out and settled with the next group (RACES 8). Every write comes from `settled`, the rows that both
-- locks returned, never from the input (RACES 6). The fence (worker, epoch) pins the version of the task row, so the
-- later lookups by ctid find what was locked; sagas are looked up by id, because theirs may be newer than the snapshot.
-- The laterals with OFFSET 0 drive from the input whatever the statistics say: saga_pkey, task_pkey.
with input as materialized (
  select * from unnest($2::bigint[], $3::int[], $4::bigint[], $5::text[], $6::smallint[], $7::int[], $8::text[],
    $9::boolean[], $10::smallint[], $11::text[], $12::int[], $13::int[], $14::boolean[], $15::text[], $16::bigint[],
    $17::text[], $18::text[], $19::text[])
  as i(task_id, epoch, saga_id, outcome, status_code, duration_us, message,
    in_place, next_step, next_op, next_attempt, next_counted, next_unknown, next_last_outcome, delay_us,
    saga_status, saga_reason, step_name)
), me as materialized (
  select id from pgsaga.worker where id = $1 and not dead for key share
), locked_saga as materialized (
  select s.id
  from (select saga_id from input where not in_place and exists (select from me)) i
  cross join lateral (
    select id from pgsaga.saga where id = i.saga_id and finished_at is null offset 0 for no key update skip locked
  ) s
), settled as materialized (
  select i.*, t.row_id, t.step, t.op, t.attempt, t.format, t.bytes
  from (select * from input where exists (select from me)
        and (in_place or saga_id in (select id from locked_saga))) i
  cross join lateral (
    select ctid as row_id, step, op, attempt, format, bytes from pgsaga.task
    where id = i.task_id and worker = $1 and epoch = i.epoch offset 0 for update skip locked
  ) t
), recorded as (
  insert into pgsaga.history (saga_id, step, op, attempt, outcome, status_code, duration_us, message, worker)
  select saga_id, step, op, attempt, outcome, status_code, duration_us, message, $1 from settled
), advanced as (
  update pgsaga.task t
  set step = t.step + 1, attempt = 1, counted = 0, unknown_before = false, last_outcome = null,
      lost = 0, lost_alone = 0, alone = false, epoch = t.epoch + 1
  where t.ctid = any (array(select row_id from settled where in_place))
), removed as (
  delete from pgsaga.task t where t.ctid = any (array(select row_id from settled where not in_place))
), queued as (
  insert into pgsaga.task (saga_id, step, op, attempt, counted, unknown_before, last_outcome, format, bytes, worker, epoch, run_at)
  select saga_id, next_step, next_op, next_attempt, next_counted, next_unknown, next_last_outcome, format, bytes,
    case when delay_us is null then $1 end, epoch + 1,
    clock_timestamp() + coalesce(delay_us, 0) * interval '1 microsecond'
  from settled where not in_place and next_step is not null
  returning id, saga_id
), succeeded as (
  update pgsaga.saga s set status = 'succeeded', finished_at = clock_timestamp()
  where s.id = any (array(select saga_id from settled where saga_status = 'succeeded'))
), changed as (
  update pgsaga.saga s
  set status = t.saga_status, reason = coalesce(t.saga_reason, s.reason),
      finished_at = case when t.saga_status = 'failed' then clock_timestamp() end
  from settled t
  where s.id = any (array(select saga_id from settled where saga_status <> 'succeeded'))
    and t.saga_id = s.id
), stuck as (
  insert into pgsaga.stuck (saga_id, step, reason)
  select saga_id, step_name, saga_reason from settled where saga_status = 'stuck'
)
select task_id, saga_id, null::bigint as queued_id from settled
union all
select null, saga_id, id from queued
