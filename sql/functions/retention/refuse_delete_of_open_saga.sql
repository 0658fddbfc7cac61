-- version 1: expands

-- Refuses to delete a saga that has not finished.
create or replace function pgsaga.refuse_delete_of_open_saga() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if old.finished_at is null then
    raise exception using errcode = 'restrict_violation',
      message = format('saga %s is %s: only a finished saga can be deleted', old.gid, old.status);
  end if;
  return old;
end
$$;
revoke all on function pgsaga.refuse_delete_of_open_saga from public;

create or replace trigger refuse_delete_of_open_saga before delete on pgsaga.saga
  for each row execute function pgsaga.refuse_delete_of_open_saga();
