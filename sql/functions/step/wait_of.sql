-- version 1: expands

-- Returns how long an op waits for a completion instead of calling somebody; null where it calls. A
-- number that an edit by hand left is taken as the nearest that is allowed.
create or replace function pgsaga.wait_of(steps jsonb, step int, op text) returns interval
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select make_interval(secs => greatest(least((steps -> (step - 1) -> 'wait_seconds')::numeric, 31536000), 0.001)::float8)
  where op = 'action' and jsonb_typeof(steps -> (step - 1) -> 'wait_seconds') = 'number'
$$;
revoke all on function pgsaga.wait_of from public;
