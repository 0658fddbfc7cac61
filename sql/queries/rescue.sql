-- Requeues up to $2 tasks of the dead worker $1. The lost try is recorded as `unknown` in the statement that queues the
-- next one (RACES 4). A rescued task is a new row: a late settle of the dead worker finds nothing. A task that killed
-- $3 workers while it ran alone makes its saga stuck instead (RACES 20).
-- Locks saga, then task, and waits for neither. Runs only after declare_dead committed, so its snapshot has every claim. The
-- epoch pins the version of the row that the snapshot saw: a newer one could be recorded and not deleted. A worker that
-- signed off (`retired`) did not die: what it left is unknown, but speaks against nobody.
-- Scans the hot table, once for each dead worker: an index on the worker would cost every claim.
with lost as materialized (
  select id, saga_id, epoch from pgsaga.task where worker = $1 limit $2
), died as materialized (
  select coalesce((select not retired from pgsaga.worker where id = $1), true) as died
), locked_saga as materialized (
  select s.id, s.step_names
  from (select distinct saga_id from lost) i
  cross join lateral (
    select id, steps as step_names from pgsaga.saga where id = i.saga_id and finished_at is null offset 0
    for no key update skip locked
  ) s
), locked as materialized (
  select t.*, d.died, case when d.died and t.alone and t.lost_alone + 1 >= $3 then
      coalesce(s.step_names -> (t.step - 1) ->> 'name', lpad(t.step::text, greatest(2, length(t.step::text)), '0')) end as stuck_step
  from lost i
  join locked_saga s on s.id = i.saga_id
  cross join died d
  cross join lateral (
    select k.ctid as row_id, k.* from pgsaga.task k where k.id = i.id and k.worker = $1 and k.epoch = i.epoch offset 0 for update skip locked
  ) t
), recorded as (
  insert into pgsaga.history (saga_id, step, op, attempt, outcome, message, worker)
  select saga_id, step, op, attempt, 'unknown', 'worker ' || $1 || ' was lost during this try', $1 from locked
), removed as (
  delete from pgsaga.task t where t.ctid = any (array(select row_id from locked))
), queued as (
  insert into pgsaga.task (saga_id, step, op, attempt, counted, unknown_before, last_outcome, lost, lost_alone, format, bytes, epoch, run_at)
  select saga_id, step, op, attempt + 1, counted + 1, true, 'unknown',
    least(lost + died::int, 30000), lost_alone + (died and alone)::int, format, bytes, epoch + 1, clock_timestamp()
  from locked where stuck_step is null
  returning id
), stuck_saga as (
  update pgsaga.saga s
  set status = 'stuck', reason = t.stuck_step || ': killed ' || $3 || ' workers while it ran alone'
  from locked t where t.saga_id = s.id and t.stuck_step is not null
), stuck as (
  insert into pgsaga.stuck (saga_id, step, reason)
  select saga_id, stuck_step, stuck_step || ': killed ' || $3 || ' workers while it ran alone' from locked where stuck_step is not null
)
select (select count(*) from lost) as found, (select count(*) from locked) as rescued
