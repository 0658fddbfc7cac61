-- What this database has done so far: its clock, its commits, the versions of rows that it left
-- dead, and its WAL.
select (date_part('epoch', clock_timestamp()) * 1000000)::bigint as at_us,
  (select xact_commit from pg_stat_database where datname = current_database()) as commits,
  (select coalesce(sum(n_tup_upd + n_tup_del), 0)::bigint from pg_stat_user_tables where schemaname = 'pgsaga') as dead_rows,
  pg_current_wal_insert_lsn()::text as wal_lsn
