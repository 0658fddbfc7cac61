-- version 1: expands

-- Whether the step at position `at` comes after a pivot that has succeeded: from there a saga only
-- goes forward.
create or replace function pgsaga.is_past_pivot(s pgsaga.saga, at int) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  pivot constant int := pgsaga.pivot_of(s.steps);
begin
  return coalesce(case when s.progress is null then at > pivot else substr(s.progress, pivot, 1) = 'd' end, false);
end
$$;
revoke all on function pgsaga.is_past_pivot from public;
grant execute on function pgsaga.is_past_pivot to pgsaga_worker;
