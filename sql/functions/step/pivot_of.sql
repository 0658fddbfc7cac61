-- version 1: expands

-- Returns the position of the pivot; null where there is none.
create or replace function pgsaga.pivot_of(steps jsonb) returns int
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return (select position from jsonb_array_elements(pgsaga.steps_of(steps)) with ordinality as e (body, position)
          where body -> 'pivot' = 'true' limit 1);
end
$$;
revoke all on function pgsaga.pivot_of from public;
