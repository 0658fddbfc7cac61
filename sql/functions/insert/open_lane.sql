-- version 1: expands

-- Returns a lane of a queue and a priority class: that of the participant where there is one, else
-- one without a participant, which it creates at the first use. Nothing here waits for another
-- transaction (docs/races.md, R30): while the lane of an open transaction is not visible, others
-- create a lane of their own.
create or replace function pgsaga.open_lane(queue text, priority smallint, participant text) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  found int;
begin
  select l.id into found from pgsaga.lane l
    where l.queue = open_lane.queue and l.priority = open_lane.priority and l.participant in ('', open_lane.participant)
    order by l.participant desc, l.id limit 1;
  if found is null then
    -- control: lane-without-waiting
    insert into pgsaga.lane (queue, priority) values (open_lane.queue, open_lane.priority) returning id into found;
  end if;
  return found;
end
$$;
revoke all on function pgsaga.open_lane from public;
