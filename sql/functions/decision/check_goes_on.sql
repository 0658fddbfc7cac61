-- version 1: expands

-- Refuses, with SQLSTATE 55000, a decision that would leave a saga without a task and without a
-- stuck step: the saga would stay open for ever.
create or replace function pgsaga.check_goes_on(s pgsaga.saga) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from pgsaga.task where saga_id = s.id) and not exists (select from pgsaga.stuck where saga_id = s.id) then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('saga %s: found no queued try and no stuck step; allowed: resolve or force, which end it', s.gid);
  end if;
end
$$;
revoke all on function pgsaga.check_goes_on from public;
