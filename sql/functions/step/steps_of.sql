-- version 1: expands

-- Returns the steps of a saga, or an empty array if an edit by hand left no array in the column.
create or replace function pgsaga.steps_of(steps jsonb) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return case when jsonb_typeof(steps) = 'array' then steps else '[]' end;
end
$$;
revoke all on function pgsaga.steps_of from public;
