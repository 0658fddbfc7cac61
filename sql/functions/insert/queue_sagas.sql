-- version 1: expands

-- Inserts the first task of each inserted saga that runs its steps in order. Those of parallel
-- sagas are inserted by queue_parallel_saga. After `on conflict (gid) do nothing` the transition
-- table lacks the skipped rows.
--
-- Notifies workers only when one of them is idle, because a NOTIFY in every INSERT would cost nine
-- tenths of the insert rate. An idle worker holds the advisory lock 8101820131131281 exclusively,
-- so an attempt to share the lock fails just then. The lock is taken and released in one
-- expression: PERFORM would run a query of its own, and each further expression is prepared in
-- every transaction.
create or replace function pgsaga.queue_sagas() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- One scan and no join: the start of each plan node costs a single INSERT more than its rows do.
  insert into pgsaga.task (saga_id, step, op, format, bytes, lane, participant, deadline, run_at)
    select i.id, 1, 'action', i.format, i.bytes,
           -- Lane 1 is there from the start. A look for a lane is a twentieth of an INSERT.
           case when i.queue = 'default' and i.priority = 1 and not starts_with(i.steps #>> '{0,action}', 'participant:') then 1
             else pgsaga.open_lane(i.queue, i.priority, split_part(i.steps #>> '{0,action}', '/', 1)) end,
           split_part(split_part(i.steps #>> '{0,action}', '/', case when split_part(i.steps #>> '{0,action}', '/', 1) like '%:' then 3 else 1 end), '?', 1),
           i.deadline,
           -- control: insert-time
           greatest(clock_timestamp(), i.run_at)
    from inserted i where i.progress is null;
  -- CASE evaluates its branches in order. A shared lock is released at once.
  if (case
      when current_setting('pgsaga.notify', true) = 'off' then false
      -- control: insert-notifies-idle
      when pg_try_advisory_lock_shared(8101820131131281) then not pg_advisory_unlock_shared(8101820131131281)
      else true end) then
    notify pgsaga;
  end if;
  return null;
end
$$;
revoke all on function pgsaga.queue_sagas from public;

create or replace trigger queue_sagas after insert on pgsaga.saga
  referencing new table as inserted for each statement execute function pgsaga.queue_sagas();
