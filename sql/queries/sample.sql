-- What keeps the tables from being vacuumed: dead rows (the history's partitions as one), as the statistics count them, and
-- the age in seconds of the oldest transaction that is open or prepared in this database. One worker asks, every 15 s. The age of other
-- users' sessions shows only to members of pg_read_all_stats; without it, it is that of pgsaga's own sessions.
select coalesce(sum(n_dead_tup) filter (where relname = 'task'), 0)::bigint as task,
  coalesce(sum(n_dead_tup) filter (where relname = 'saga'), 0)::bigint as saga,
  coalesce(sum(n_dead_tup) filter (where relname like 'history%'), 0)::bigint as history,
  coalesce((
    select date_part('epoch', clock_timestamp() - min(since))
    from (
      select xact_start as since from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid() and (backend_xid is not null or backend_xmin is not null)
      union all
      select prepared from pg_prepared_xacts where database = current_database()
    ) open
  ), 0) as oldest_transaction
from pg_stat_user_tables where schemaname = 'pgsaga'
