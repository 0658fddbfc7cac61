-- version 1: expands

-- Returns the name of a step: its own, or its position with at least two digits.
create or replace function pgsaga.step_name(steps jsonb, step int) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(steps -> (step - 1) ->> 'name', lpad(step::text, greatest(2, length(step::text)), '0'));
end
$$;
revoke all on function pgsaga.step_name from public;
