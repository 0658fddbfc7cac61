-- version 1: expands

-- Pauses a queue: none of its tasks is claimed, and no saga of it goes on to its next step. Calls
-- in flight end. Deadlines wait too.
create or replace function pgsaga.pause(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update pgsaga.queue q set paused_at = clock_timestamp(), paused_by = pgsaga.decider() where q.name = pause.queue and paused_at is null;
  if not found and not exists (select from pgsaga.queue q where q.name = pause.queue) then
    raise exception using errcode = 'no_data_found', message = format('no saga was ever in the queue %s; queues: %s',
      to_json(coalesce(pause.queue, 'null')), (select string_agg(to_json(name)::text, ', ' order by name) from pgsaga.queue));
  end if;
end
$$;
revoke all on function pgsaga.pause from public;
grant execute on function pgsaga.pause to pgsaga_operator;
