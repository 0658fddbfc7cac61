-- Refuses the script of `pgsaga migrate --print` on a database that the script does not fit. The
-- script sets pgsaga.migrate_from to the schema version that it starts from.
do $$
declare
  starts_from constant bigint := current_setting('pgsaga.migrate_from');
  found bigint := 0;
begin
  if current_setting('server_encoding') <> 'UTF8' then
    raise exception 'server_encoding of this database: found %; allowed: UTF8', current_setting('server_encoding')
      using hint = 'Move to a database that was made with `create database NAME encoding ''UTF8'' template template0`.';
  end if;
  perform pg_advisory_xact_lock(8101820131131283);
  if to_regclass('pgsaga.migration') is not null then
    if not exists (select from pg_attribute where attrelid = to_regclass('pgsaga.migration') and attname = 'digest') then
      raise exception 'the schema pgsaga: found one of an unreleased pgsaga (0.1 to 0.4); allowed: none, or one of a release'
        using hint = 'Give its sagas up, `drop schema pgsaga cascade`, and run the script again.';
    end if;
    execute 'select coalesce(max(version), 0) from pgsaga.migration' into found;
  end if;
  if found <> starts_from then
    raise exception 'the schema pgsaga: found version %; allowed: %, which this script starts from', found, starts_from
      using hint = 'Print the script anew with --from and the version found, by the newest release.';
  end if;
end
$$;
