-- version 1: expands

-- Returns the position of a stuck step: the recorded position if it is valid, else the position of
-- the step with the recorded name, else 1.
create or replace function pgsaga.stuck_position(s pgsaga.saga, stuck_step text, stuck_position int) returns smallint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  steps constant jsonb := pgsaga.steps_of(s.steps);
begin
  if stuck_position between 1 and greatest(jsonb_array_length(steps), 1) then
    return stuck_position;
  end if;
  return coalesce((
    select position from jsonb_array_elements(steps) with ordinality as e (body, position)
    where coalesce(body ->> 'name', lpad(position::text, greatest(2, length(position::text)), '0')) = stuck_step and position <= 32767
    limit 1), 1);
end
$$;
revoke all on function pgsaga.stuck_position from public;
