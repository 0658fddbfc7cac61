-- version 1: expands

-- Returns the name of the first step that is queued or stuck. Reasons of decisions begin with it.
create or replace function pgsaga.current_step_name(s pgsaga.saga) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return pgsaga.step_name(s.steps, coalesce(least(
    (select min(step) from pgsaga.task where saga_id = s.id), (select min(position) from pgsaga.stuck where saga_id = s.id)), 1));
end
$$;
revoke all on function pgsaga.current_step_name from public;
