-- Queues up to $2 tasks of the dead worker $1 again. Leaves tasks of a row format above $3 alone,
-- because this statement could lose their new columns.
--
-- The statement that queues the next attempt also records the lost attempt as `unknown`
-- (docs/races.md, R4). An attempt of a transactional handler is `unsent`: what it wrote commits
-- together with its record, and once the task's row is gone no record of it can be written
-- (docs/races.md, R31). A rescued task is a new row, so that a late settle of the dead worker finds
-- nothing. A worker that retired (`retired`) did not die: the outcomes of its tasks are unknown,
-- but their `lost` is not raised.
--
-- A task that waits for a completion calls nobody, or not yet: no attempt was lost, and it is
-- queued again as it was.
--
-- Locks the saga, then the task, and waits for neither. Runs only after declare_dead has committed,
-- so that its snapshot contains every claim. Epoch and interrupt pin the row version that the
-- snapshot saw: a newer version could be recorded without being deleted. Scans the table of tasks
-- once for each dead worker, because an index on the worker would make every claim more expensive.
with lost as materialized (
  -- control: rescue-scan
  select id, saga_id, epoch, interrupt, completion from pgsaga.task where worker = $1 and format <= $3 limit $2
), died as materialized (
  select coalesce((select not retired from pgsaga.worker where id = $1), true) as died,
    coalesce((select transactional from pgsaga.worker where id = $1), '{}') as transactional
), locked_saga as materialized (
  select s.id, s.steps
  from (select distinct saga_id from lost) i
  -- control: rescue-saga-lock
  cross join lateral (
    select id, steps from pgsaga.saga where id = i.saga_id and finished_at is null offset 0
    for no key update skip locked
  ) s
), locked as materialized (
  select t.*, d.died, whom.participant as whom,
    -- control: rescue-transactional
    whom.participant = any (d.transactional) as is_rolled_back,
    -- control: rescue-waits
    t.op = 'action' and s.steps -> (t.step - 1) ? 'wait_seconds' or coalesce(t.wait_ends_at > clock_timestamp(), false) as is_waiting
  from lost i
  join locked_saga s on s.id = i.saga_id
  cross join died d
  cross join lateral (
    select k.ctid as row_id, k.*, s.steps -> (k.step - 1) ->> k.op as url
    from pgsaga.task k where k.id = i.id and k.worker = $1 and k.epoch = i.epoch
      -- control: rescue-task-fence
      and k.interrupt is not distinct from i.interrupt and k.completion is not distinct from i.completion offset 0 for update skip locked
  ) t
  cross join lateral (
    select coalesce(split_part(split_part(t.url, '/', case when split_part(t.url, '/', 1) like '%:' then 3 else 1 end), '?', 1), '') as participant
  ) whom
), recorded as (
  insert into pgsaga.history (saga_id, step, op, attempt, outcome, message, worker)
  -- control: rescue-lost-try
  select saga_id, step, op, attempt, case when is_rolled_back then 'unsent' else 'unknown' end, 'worker ' || $1 || ' was lost during this try' || case when is_rolled_back then ', which was rolled back' else '' end, $1 from locked where not is_waiting
), removed as (
  delete from pgsaga.task t where t.ctid = any (array(select row_id from locked))
), queued as (
  insert into pgsaga.task (saga_id, step, op, attempt, counted, unknown_before, last_outcome, lost, lost_isolated, format, bytes,
                           lane, participant, interrupt, completion, wait, wait_ends_at, deadline, epoch, run_at)
  -- control: rescue-next-try
  select saga_id, step, op, least(attempt, 2147483646) + (not is_waiting)::int, least(counted, 2147483646) + (not is_waiting)::int, unknown_before or not (is_rolled_back or is_waiting), case when is_rolled_back or is_waiting then last_outcome else 'unknown' end,
    -- control: rescue-deaths
    least(lost + (died and not is_waiting)::int, 30000), least(lost_isolated + (died and isolated)::int, 30000), format, bytes,
    -- control: rescue-next-task
    pgsaga.lane_of(lane, case when interrupt is null and completion is null then whom else '' end), case when completion is null then whom else '' end, interrupt, completion, wait, wait_ends_at, deadline, epoch + (epoch < 2147483647)::int, clock_timestamp()
  from locked
), changed as (
  -- The tasks are new rows now, so a plan that was made before must be made again.
  -- control: rescue-version
  update pgsaga.saga s set version = case when s.version < 2147483647 then s.version + 1 else 0 end
  where s.progress is not null and s.id = any (array(select saga_id from locked))
)
select (select count(*) from lost) as found, (select count(*) from locked) as rescued
