-- Returns, in words and the oldest first, the sessions that may keep a migration waiting: other
-- sessions whose transaction is more than a second old and holds either the lock of migrations or a
-- lock on an object of the schema pgsaga. Postgres shows a session's statement only to a user who
-- may see it.
select 'process ' || a.pid || coalesce(' of ' || a.usename, '') || coalesce(' (' || nullif(a.application_name, '') || ')', '')
  || coalesce(', ' || a.state, '') || coalesce(', in a transaction for ' || extract(epoch from clock_timestamp() - a.xact_start)::int || ' s', '') as holder
from pg_stat_activity a
where a.pid <> pg_backend_pid() and a.datname = current_database()
  and coalesce(a.xact_start < clock_timestamp() - interval '1 second', true)
  and exists (
    select from pg_locks l left join pg_class c on c.oid = l.relation
    where l.pid = a.pid and l.granted and l.database = (select oid from pg_database where datname = current_database())
      and (c.relnamespace = to_regnamespace('pgsaga')
        or l.locktype = 'advisory' and l.objsubid = 1 and (l.classid::bigint << 32) + l.objid::bigint = 8101820131131283))
order by a.xact_start
limit 5
