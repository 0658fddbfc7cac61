-- version 1: expands

-- Inserts the first tasks of each inserted saga: those of the steps that wait for no other step.
-- After `on conflict (gid) do nothing` the transition table lacks the skipped rows.
--
-- Notifies workers only when one of them is idle, because a NOTIFY in every INSERT would cost nine
-- tenths of the insert rate. An idle worker holds the advisory lock 8101820131131281 exclusively,
-- so an attempt to share the lock fails just then. The lock is taken and released in one
-- expression: PERFORM would run a query of its own, and each further expression is prepared in
-- every transaction.
create or replace function pgsaga.queue_sagas() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into pgsaga.task (saga_id, step, op, format, bytes, lane, participant, deadline, run_at)
    select i.id, first.position, 'action', i.format, i.bytes, case
             -- Lane 1 is there from the start. A look for a lane is a twentieth of an INSERT.
             when i.queue = 'default' and i.priority = 1 and not starts_with(whom.participant, 'participant:') then 1
             else coalesce(
               -- The lane of the participant, where there is one.
               (select l.id from pgsaga.lane l
                where l.participant in ('', whom.participant) and l.queue = i.queue and l.priority = i.priority
                order by l.participant desc, l.id limit 1),
               pgsaga.open_lane(i.queue, i.priority)) end,
           whom.participant, i.deadline,
           -- control: insert-time
           greatest(clock_timestamp(), i.run_at)
    from inserted i
    cross join lateral (
      select 1 as position, i.steps -> 0 as step where i.progress is null
      union all
      -- One access to `steps` a saga, because each access decompresses a large definition.
      select ordinality::int, value
      from jsonb_array_elements(case when i.progress is null then '[]' else i.steps end) with ordinality
      where substr(i.progress, ordinality::int, 1) = 'a'
    ) first
    cross join lateral (
      select split_part(split_part(first.step ->> 'action', '/', case when split_part(first.step ->> 'action', '/', 1) like '%:' then 3 else 1 end), '?', 1)
        as participant
    ) whom;
  -- CASE evaluates its branches in order. A shared lock is released at once.
  if (case
      when not found or current_setting('pgsaga.notify', true) = 'off' then false
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
