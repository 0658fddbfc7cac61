-- version 1: expands

-- Returns the decider: the session user, preceded by the name of a person if the program gives one,
-- as in `Ann Lee (pgsaga_ui)`. Many people may share the login of a program such as `pgsaga ui`,
-- which sets pgsaga.decided_by in its transaction. No setting replaces the session user.
create or replace function pgsaga.decider() returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  person constant text := left(trim(current_setting('pgsaga.decided_by', true)), 64);
begin
  return case when coalesce(person, '') = '' then session_user else person || ' (' || session_user || ')' end;
end
$$;
revoke all on function pgsaga.decider from public;
