-- The login of an autoscaler: it may read the view pgsaga.queues, and nothing else of pgsaga.
-- Idempotent; run it as a superuser after `pgsaga migrate`, and give it a password (\password
-- pgsaga_scaler in psql):
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f docs/deploy/kubernetes/scaler_role.sql
-- The view counts with its owner's rights, so no right on the tables behind it is needed. A
-- migration that makes the view anew says so in CHANGELOG.md: run this again then.
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'pgsaga_scaler') then
    create role pgsaga_scaler login;
  end if;
end
$$;

-- Whoever asks every few seconds must never be what holds up vacuum, or takes the connections of
-- workers.
alter role pgsaga_scaler connection limit 5;
alter role pgsaga_scaler set statement_timeout = '5s';
alter role pgsaga_scaler set idle_in_transaction_session_timeout = '5s';
alter role pgsaga_scaler set default_transaction_read_only = on;

grant usage on schema pgsaga to pgsaga_scaler;
grant select on pgsaga.queues to pgsaga_scaler;
