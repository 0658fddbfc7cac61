-- version 1: expands

-- Returns the lane of the same queue and class in which tasks of a participant lie: that of the
-- participant where there is one, else one without a participant.
create or replace function pgsaga.lane_of(lane int, participant text) returns int
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce((
    select o.id from pgsaga.lane l
    join pgsaga.lane o on o.queue = l.queue and o.priority = l.priority and o.participant in ('', lane_of.participant)
    where l.id = lane_of.lane
    order by o.participant desc, o.id limit 1), lane_of.lane)
$$;
revoke all on function pgsaga.lane_of from public;
grant execute on function pgsaga.lane_of to pgsaga_worker;
