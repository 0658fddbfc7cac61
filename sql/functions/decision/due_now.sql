-- version 1: expands

-- Returns when a task is due that must run at once: no later than now, and no earlier than claims
-- look for it.
create or replace function pgsaga.due_now(run_at timestamptz) returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return case when run_at >= 'epoch' then least(run_at, clock_timestamp()) else clock_timestamp() end;
end
$$;
revoke all on function pgsaga.due_now from public;
