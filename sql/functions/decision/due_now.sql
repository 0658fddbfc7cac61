-- version 1: expands

-- Returns the `run_at` of a task that must run immediately: not later than now, and not earlier
-- than 1970, where claims start to look.
create or replace function pgsaga.due_now(run_at timestamptz) returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return case when run_at >= 'epoch' then least(run_at, clock_timestamp()) else clock_timestamp() end;
end
$$;
revoke all on function pgsaga.due_now from public;
