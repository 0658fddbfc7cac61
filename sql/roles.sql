-- The roles of pgsaga. Idempotent; roles belong to the whole cluster, so several databases share
-- them. `pgsaga migrate` runs this first, as a user who may create roles (skip it with --skip-roles
-- when a person has). Grant them to your own login roles:  grant pgsaga_producer to my_application;
do $$
declare
  role text;
begin
  -- One at a time: catalogs do not wait for each other, they fail.
  perform pg_advisory_xact_lock(8101820131131283);
  foreach role in array array['pgsaga_owner', 'pgsaga_producer', 'pgsaga_worker', 'pgsaga_reader', 'pgsaga_operator'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = role) then
      begin
        execute format('create role %I nologin', role);
      exception
        when duplicate_object or unique_violation then null;  -- another database's migration was faster
      end;
    end if;
  end loop;
  -- Objects are made as pgsaga_owner, so that no function with its owner's rights is a superuser's.
  -- From Postgres 16 on whoever creates a role may grant it, but is not allowed to SET ROLE to it.
  if current_setting('server_version_num')::int >= 160000 then
    if not pg_has_role(current_user, 'pgsaga_owner', 'SET') then
      execute format('grant pgsaga_owner to %I with set true, inherit true', current_user);
    end if;
  elsif not pg_has_role(current_user, 'pgsaga_owner', 'member') then
    execute format('grant pgsaga_owner to %I', current_user);
  end if;
end
$$;

create schema if not exists pgsaga authorization pgsaga_owner;
