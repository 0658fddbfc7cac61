-- version 1: expands

-- Inserts the first tasks of a parallel saga: those of the steps that wait for no other step.
-- queue_sagas, which runs after it, notifies the workers.
create or replace function pgsaga.queue_parallel_saga() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into pgsaga.task (saga_id, step, op, format, bytes, lane, participant, deadline, run_at)
    select new.id, first.position, 'action', new.format, new.bytes,
           pgsaga.open_lane(new.queue, new.priority, whom.participant), whom.participant, new.deadline,
           greatest(clock_timestamp(), new.run_at)
    from jsonb_array_elements(new.steps) with ordinality as first (step, position)
    cross join lateral (
      select split_part(split_part(first.step ->> 'action', '/', case when split_part(first.step ->> 'action', '/', 1) like '%:' then 3 else 1 end), '?', 1)
        as participant
    ) whom
    where substr(new.progress, first.position::int, 1) = 'a';
  return null;
end
$$;
revoke all on function pgsaga.queue_parallel_saga from public;

create or replace trigger queue_parallel_saga after insert on pgsaga.saga
  for each row when (new.progress is not null) execute function pgsaga.queue_parallel_saga();
