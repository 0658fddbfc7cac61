-- version 1: expands

-- Says whether a worker of this environment may work in this database. A copy of a database holds
-- the sagas of its original, and would call the original's participants under the same keys.
--   environment  the environment that the worker works for; null = none
--   misfit       why the worker may not work here, and the command that helps; null = it may
--   doubt        what the worker should warn of; null = nothing
create or replace function pgsaga.check_home(environment text, out misfit text, out doubt text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  home pgsaga.home%rowtype;
  here constant bigint := pgsaga.system_identifier();
  worker constant text := case when check_home.environment is null then 'this worker names no environment'
    else format('this worker works for "%s"', check_home.environment) end;
  copied text;
  named text;
begin
  select h.* into home from pgsaga.home h;
  -- control: home-cluster
  if not found or home.system_identifier is distinct from here then
    copied := format('the database was made in another cluster (system identifier %s; here %s). If nobody works on the '
      'original any more, run `pgsaga migrate --adopt`',
      coalesce(home.system_identifier::text, 'not known'), coalesce(here::text, 'not revealed'));
  end if;
  -- control: home-environment
  if home.environment <> coalesce(check_home.environment, '') then
    named := format('the database belongs to the environment "%1$s", and %2$s. Start workers with `--environment %1$s`, '
      'or rename the database: `pgsaga migrate --environment %3$s`',
      home.environment, worker, coalesce(check_home.environment, 'NAME'));
  end if;
  misfit := nullif(concat_ws('; ', named, copied), '');
  doubt := nullif(concat_ws('; ',
    case when home.environment is null and check_home.environment is not null then
      format('the database has no environment, and %s. Name the database: `pgsaga migrate --environment %s`',
        worker, check_home.environment) end,
    case when here is null then
      'this server does not reveal its system identifier to pgsaga_owner: only the name of the environment tells a copy of '
      'the database. Where the server allows it: `grant execute on function pg_control_system() to pgsaga_owner`' end), '');
end
$$;
revoke all on function pgsaga.check_home from public;
grant execute on function pgsaga.check_home to pgsaga_worker;
