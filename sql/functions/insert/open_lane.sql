-- version 1: expands

-- Returns the lane of a queue and a priority class, and creates the lane at its first use. Each
-- INSERT names its conflict target. Without the target, an id that lane_id_seq returns twice would
-- count as an existing lane; with the target, such an id is an error.
create or replace function pgsaga.open_lane(queue text, priority smallint) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  found int;
begin
  select l.id into found from pgsaga.lane l where l.queue = open_lane.queue and l.priority = open_lane.priority;
  if found is null then
    insert into pgsaga.queue (name) values (open_lane.queue) on conflict (name) do nothing;
    insert into pgsaga.lane (queue, priority) values (open_lane.queue, open_lane.priority)
      -- control: lane-conflict
      on conflict (queue, priority) do nothing;
    select l.id into found from pgsaga.lane l where l.queue = open_lane.queue and l.priority = open_lane.priority;
  end if;
  return found;
end
$$;
revoke all on function pgsaga.open_lane from public;
