-- Identifies this server, by the start of its postmaster as in register.sql and heartbeat.sql, and
-- the history that it continues: the cluster and the timeline. Every promotion and every
-- point-in-time recovery starts a new timeline. A worker runs this statement only if it does not
-- know the server.
select pg_postmaster_start_time() as server,
  (select system_identifier from pg_control_system()) || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) as history
