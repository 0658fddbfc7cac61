-- version 1: expands

-- Inserts the first tasks of a saga whose row keeps its progress: those of the steps that wait for
-- no other step. queue_sagas, which runs after it, notifies the workers.
--
-- The beginning of a wait is an attempt by itself, and ends `ongoing`: from then on the world may
-- act.
create or replace function pgsaga.queue_parallel_saga() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if new.steps @? '$[*].wait_seconds' then
    perform pgsaga.prepare_history(new.id);
  end if;
  with queued as (
    insert into pgsaga.task (saga_id, step, op, attempt, last_outcome, format, bytes, lane, participant, deadline, wait, wait_ends_at, run_at)
      select new.id, first.position, 'action', case when waits.how_long is null then 1 else 2 end, case when waits.how_long is not null then 'ongoing' end,
             new.format, new.bytes, pgsaga.open_lane(new.queue, new.priority, whom.participant), whom.participant, new.deadline,
             waits.how_long, begins.at + waits.how_long, least(coalesce(begins.at + waits.how_long, begins.at), new.deadline)
      from jsonb_array_elements(new.steps) with ordinality as first (step, position)
      cross join lateral (
        select coalesce(split_part(split_part(first.step ->> 'action', '/', case when split_part(first.step ->> 'action', '/', 1) like '%:' then 3 else 1 end), '?', 1), '')
          as participant
      ) whom
      cross join lateral (select pgsaga.wait_of(new.steps, first.position::int, 'action') as how_long) waits
      cross join (select greatest(clock_timestamp(), new.run_at) as at) begins
      where substr(new.progress, first.position::int, 1) = 'a'
      returning step, wait
  )
  insert into pgsaga.history (saga_id, step, op, attempt, outcome, message)
    select new.id, q.step, 'action', 1, 'ongoing', 'waits for a completion' from queued q where q.wait is not null;
  return null;
end
$$;
revoke all on function pgsaga.queue_parallel_saga from public;

create or replace trigger queue_parallel_saga after insert on pgsaga.saga
  for each row when (new.progress is not null) execute function pgsaga.queue_parallel_saga();
