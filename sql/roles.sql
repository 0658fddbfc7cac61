-- The roles of pgsaga. Idempotent; roles belong to the whole cluster, so several databases share
-- them. `pgsaga migrate` runs this first, as a user who may create roles (skip it with --skip-roles
-- when a person has). Grant them to your own login roles:  grant pgsaga_producer to my_application;
do $$
declare
  role text;
  -- From Postgres 16 on whoever creates a role may grant it, but is not allowed to SET ROLE to it.
  is_16 constant boolean := current_setting('server_version_num')::int >= 160000;
  helps text;
begin
  -- One at a time: catalogs do not wait for each other, they fail.
  perform pg_advisory_xact_lock(8101820131131283);
  foreach role in array array['pgsaga_owner', 'pgsaga_producer', 'pgsaga_completer', 'pgsaga_worker', 'pgsaga_reader', 'pgsaga_operator'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = role) then
      begin
        execute format('create role %I nologin', role);
      exception
        when duplicate_object or unique_violation then null;  -- another database's migration was faster
        when insufficient_privilege then
          raise insufficient_privilege using message = format('user %I may not create the role %s. '
            'A superuser allows it: alter role %I createrole; or runs roles.sql in this database', current_user, role, current_user);
      end;
    end if;
  end loop;
  -- Objects are made as pgsaga_owner, so that no function with its owner's rights is a superuser's.
  if not pg_has_role(current_user, 'pgsaga_owner', case when is_16 then 'SET' else 'MEMBER' end) then
    helps := format('grant pgsaga_owner to %I%s', current_user, case when is_16 then ' with set true, inherit true' end);
    begin
      execute helps;
    exception
      when insufficient_privilege then
        raise insufficient_privilege using message = format('user %I may not become the role pgsaga_owner, which another '
          'administrator of this server has made. That one, or a superuser, allows it: %s', current_user, helps);
    end;
  end if;
  if to_regnamespace('pgsaga') is null then
    begin
      create schema pgsaga authorization pgsaga_owner;
    exception
      when duplicate_schema or unique_violation then null;
      when insufficient_privilege then
        raise insufficient_privilege using message = format('user %I may not create the schema pgsaga. The owner of the '
          'database, or a superuser, allows it: grant create on database %I to %I', current_user, current_database(), current_user);
    end;
  end if;
end
$$;
