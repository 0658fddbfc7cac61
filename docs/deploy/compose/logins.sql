-- For compose.yaml, run by the image's entrypoint as the superuser after sql/roles.sql: the
-- workers' login. Its password comes from the container's environment.
\set ON_ERROR_STOP on
\getenv fleet_password FLEET_PASSWORD
create role fleet login password :'fleet_password';
grant pgsaga_worker to fleet;
-- Without it a worker does not see who holds a transaction open, and the alert
-- PgsagaLongTransaction stays silent.
grant pg_read_all_stats to fleet;
