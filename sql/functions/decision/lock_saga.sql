-- version 1: expands

-- Locks a saga and its tasks, for a person's decision. Waits for settles that are under way: after
-- the function returns, none of them changes this saga. Raises P0002 where there is no such saga
-- and 55000 where the saga has finished.
create or replace function pgsaga.lock_saga(gid text) returns pgsaga.saga
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
begin
  -- control: decision-saga-lock
  select * into s from pgsaga.saga where saga.gid = lock_saga.gid for no key update;
  if not found then
    raise exception using errcode = 'no_data_found', message = format('no saga has the gid %s', to_json(coalesce(gid, 'null')));
  end if;
  if s.finished_at is not null then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('saga %s has %s: nothing can be decided about it any more', s.gid, s.status);
  end if;
  perform from pgsaga.task t where t.saga_id = s.id order by t.id for update;
  return s;
end
$$;
revoke all on function pgsaga.lock_saga from public;
