-- Requeues up to $2 tasks of the dead worker $1, of row formats up to $3: a newer one may have
-- columns that are lost here. The lost try is recorded as `unknown` in the statement that queues
-- the next one (docs/races.md, R4). A rescued task is a new row: a late settle of the dead worker
-- finds nothing. Locks saga, then task, and waits for neither. Runs only after declare_dead
-- committed, so its snapshot has every claim. The epoch and the interrupt pin the version of the
-- row that the snapshot saw: a newer one could be recorded and not deleted. A worker that signed
-- off (`retired`) did not die: what it left is unknown, but speaks against nobody. Scans the hot
-- table, once for each dead worker: an index on the worker would cost every claim.
with lost as materialized (
  -- control: rescue-scan
  select id, saga_id, epoch, interrupt from pgsaga.task where worker = $1 and format <= $3 limit $2
), died as materialized (
  select coalesce((select not retired from pgsaga.worker where id = $1), true) as died
), locked_saga as materialized (
  select s.id, s.steps
  from (select distinct saga_id from lost) i
  -- control: rescue-saga-lock
  cross join lateral (
    select id, steps from pgsaga.saga where id = i.saga_id and finished_at is null offset 0
    for no key update skip locked
  ) s
), locked as materialized (
  select t.*, d.died
  from lost i
  join locked_saga s on s.id = i.saga_id
  cross join died d
  cross join lateral (
    select k.ctid as row_id, k.*, s.steps -> (k.step - 1) ->> k.op as url
    from pgsaga.task k where k.id = i.id and k.worker = $1 and k.epoch = i.epoch
      -- control: rescue-task-fence
      and k.interrupt is not distinct from i.interrupt offset 0 for update skip locked
  ) t
), recorded as (
  insert into pgsaga.history (saga_id, step, op, attempt, outcome, message, worker)
  -- control: rescue-lost-try
  select saga_id, step, op, attempt, 'unknown', 'worker ' || $1 || ' was lost during this try', $1 from locked
), removed as (
  delete from pgsaga.task t where t.ctid = any (array(select row_id from locked))
), queued as (
  insert into pgsaga.task (saga_id, step, op, attempt, counted, unknown_before, last_outcome, lost, lost_isolated, format, bytes,
                           lane, participant, interrupt, deadline, epoch, run_at)
  -- control: rescue-next-try
  select saga_id, step, op, least(attempt, 2147483646) + 1, least(counted, 2147483646) + 1, true, 'unknown',
    -- control: rescue-deaths
    least(lost + died::int, 30000), least(lost_isolated + (died and alone)::int, 30000), format, bytes,
    -- control: rescue-next-task
    lane, coalesce(split_part(split_part(url, '/', case when split_part(url, '/', 1) like '%:' then 3 else 1 end), '?', 1), ''), interrupt, deadline, epoch + (epoch < 2147483647)::int, clock_timestamp()
  from locked
), changed as (
  -- Its tasks are new rows now, so a plan that was made meanwhile is made anew.
  -- control: rescue-version
  update pgsaga.saga s set version = case when s.version < 2147483647 then s.version + 1 else 0 end
  where s.progress is not null and s.id = any (array(select saga_id from locked))
)
select (select count(*) from lost) as found, (select count(*) from locked) as rescued
