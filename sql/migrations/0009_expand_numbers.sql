-- The numbers that workers sample, as views for people and exporters: what /metrics says and these say is read by the same words.
-- Workers of version 8 do not know them.

-- Times of rows that were changed by hand may be infinite, which cannot be subtracted: none is
-- before 1970 or after now. Open is what has a task and is not stuck. The oldest open saga is the
-- first that was inserted, also where it is for later; a task of no saga is passed over.
create view pgsaga.saga_stats as
  select
    (select count(*) from (
       select distinct t.saga_id from pgsaga.task t
       where not exists (select from pgsaga.stuck k where k.saga_id = t.saga_id)) o) as open,
    (select count(distinct k.saga_id) from pgsaga.stuck k) as stuck,
    coalesce(now.at - (
               select greatest(least(s.created_at, now.at), 'epoch')
               from (select t.saga_id from pgsaga.task t order by t.saga_id) o
               cross join lateral (select i.created_at from pgsaga.saga i where i.id = o.saga_id offset 0) s
               order by o.saga_id limit 1), interval '0') as oldest_open_age,
    coalesce(now.at - (select greatest(least(min(k.at), now.at), 'epoch') from pgsaga.stuck k having count(*) > 0), interval '0') as longest_stuck_age
  from (select clock_timestamp() as at) now;
comment on view pgsaga.saga_stats is 'Sagas that are not finished, in one row.';

-- Silence is by the database's clock, which the workers do not decide by: they watch each other''s counters.
create view pgsaga.worker_stats as
  select w.id, w.host, w.pid, w.version, w.started_at, now.at - greatest(least(w.seen_at, '9999-12-31'), 'epoch') as silent_for, w.lease_ms * interval '1 millisecond' as lease,
    not w.dead and w.seen_at > now.at - w.lease_ms * interval '1 millisecond' as alive
  from pgsaga.worker w cross join (select clock_timestamp() as at) now;
comment on view pgsaga.worker_stats is 'Workers that registered and were neither signed off nor buried.';

-- The history's partitions are one.
create view pgsaga.table_stats as
  select t.name as table_name, coalesce(sum(c.n_dead_tup), 0)::bigint as dead_rows,
    coalesce(sum(pg_total_relation_size(c.relid)), 0)::bigint as bytes
  from (values ('task'), ('saga'), ('history')) t (name)
  left join pg_stat_user_tables c
    on c.schemaname = 'pgsaga' and (c.relname = t.name or t.name = 'history' and c.relname like 'history\_%')
  group by t.name;
comment on view pgsaga.table_stats is 'Dead rows, as the statistics count them, and size with indexes and TOAST.';

-- What keeps vacuum from removing dead rows. Sessions of others show only to members of pg_read_all_stats.
create view pgsaga.open_transactions as
  select 'session' as kind, a.pid, null as gid, a.usename::text as "user", a.application_name as application, a.state,
    a.xact_start as since, clock_timestamp() - a.xact_start as age
  from pg_stat_activity a
  where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start is not null
    and (a.backend_xid is not null or a.backend_xmin is not null)
  union all
  select 'prepared', null, p.gid, p.owner::text, null, null, p.prepared, clock_timestamp() - p.prepared
  from pg_prepared_xacts p
  where p.database = current_database();
comment on view pgsaga.open_transactions is 'Transactions that keep vacuum from removing what died since they began.';

grant select on pgsaga.saga_stats, pgsaga.worker_stats, pgsaga.table_stats, pgsaga.open_transactions, pgsaga.queues
  to pgsaga_worker, pgsaga_reader, pgsaga_operator;
