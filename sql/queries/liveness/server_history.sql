-- Which server this is (the start of its postmaster, as register.sql and heartbeat.sql say it), and
-- which line of history it continues: the cluster, and the timeline, which every promotion and
-- every recovery to a point in time changes. Asked only when the start is not the one that a worker
-- knows.
select pg_postmaster_start_time() as server,
  (select system_identifier from pg_control_system()) || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) as history
