-- version 1: expands

-- Returns the system identifier of this cluster; null where the server does not reveal it, as some
-- managed servers do not. A standby and a snapshot copy have the identifier of their original. A
-- cluster that was filled by a dump has its own, and so has one that pg_upgrade made.
create or replace function pgsaga.system_identifier() returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return (select c.system_identifier from pg_control_system() c);
exception
  -- `pgsaga migrate` and workers say what follows from null (check_home).
  when insufficient_privilege or feature_not_supported or undefined_function then return null;
end
$$;
revoke all on function pgsaga.system_identifier from public;
