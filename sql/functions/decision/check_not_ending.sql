-- version 1: expands

-- Refuses, with SQLSTATE 55000, a decision about a saga that a person has already ended and that
-- waits for a call in flight.
create or replace function pgsaga.check_not_ending(s pgsaga.saga) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  if s.ending is not null then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('saga %s ends as %s as soon as its last call has ended', s.gid, s.ending);
  end if;
end
$$;
revoke all on function pgsaga.check_not_ending from public;
