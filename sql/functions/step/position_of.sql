-- version 1: expands

-- Returns the position of the step of this name. Raises P0002 where the saga has none.
create or replace function pgsaga.position_of(s pgsaga.saga, step text) returns int
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  at int;
begin
  select e.position into at from jsonb_array_elements(pgsaga.steps_of(s.steps)) with ordinality as e (body, position)
    where pgsaga.step_name(s.steps, e.position::int) = position_of.step and e.position <= 32767;
  if at is null then
    raise exception using errcode = 'no_data_found',
      message = format('saga %s has no step %s', s.gid, to_json(coalesce(position_of.step, 'null')));
  end if;
  return at;
end
$$;
revoke all on function pgsaga.position_of from public;
