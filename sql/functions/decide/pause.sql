-- version 1: expands

-- Pauses a queue: none of its tasks is claimed, and no saga of it goes on to its next step. Calls
-- in flight end. Deadlines wait too. A queue that is paused already keeps its time and its person.
create or replace function pgsaga.pause(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from pgsaga.lane l where l.queue = pause.queue) then
    raise exception using errcode = 'no_data_found', message = format('no saga was ever in the queue %s; queues: %s',
      to_json(coalesce(pause.queue, 'null')),
      (select string_agg(to_json(q.queue)::text, ', ' order by q.queue) from (select distinct l.queue from pgsaga.lane l) q));
  end if;
  insert into pgsaga.paused_queue (name, paused_by) values (pause.queue, pgsaga.decider()) on conflict (name) do nothing;
end
$$;
revoke all on function pgsaga.pause from public;
grant execute on function pgsaga.pause to pgsaga_operator;
