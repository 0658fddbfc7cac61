-- version 1: expands

-- Drops a history partition if none of its sagas exists any more and no new saga can get such an
-- id. Otherwise returns false. Also returns false if a session is in the way: an older INSERT of a
-- saga that has not committed, or a lock on the history. Settles queue behind the lock that this
-- function waits for, so it waits for at most 200 ms.
create or replace function pgsaga.drop_history_partition(part bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
  first_id constant bigint := part * 1000000;
  last_id constant bigint := first_id + least(999999, 9223372036854775807 - first_id);
  inserting text[];
begin
  -- Each query below needs a snapshot that is newer than the wait before it.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'invalid_transaction_state', message = 'drop_history_partition needs READ COMMITTED';
  end if;
  -- The sequence can still return ids of this partition, or the partition does not exist.
  -- control: drop-partition-ahead
  if (select q.last_value from pgsaga.saga_id_seq q) <= last_id
     or to_regclass(format('pgsaga.history_%s', part)) is null
     or exists (select from pgsaga.saga s where s.id between first_id and last_id) then
    return false;
  end if;
  -- A transaction that has got one of these ids and has not committed holds this lock. A prepared
  -- transaction holds it without a pid.
  select array_agg(l.virtualtransaction) into inserting from pg_locks l
    where l.locktype = 'relation' and l.relation = 'pgsaga.saga'::regclass and l.mode = 'RowExclusiveLock'
      and l.database = (select d.oid from pg_database d where d.datname = current_database());
  for look in 1 .. 20 loop
    exit when not exists (
      select from pg_locks l
      where l.locktype = 'relation' and l.relation = 'pgsaga.saga'::regclass and l.mode = 'RowExclusiveLock'
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        -- control: drop-partition-inserts
        and (l.pid is null or l.virtualtransaction = any (inserting)));
    if look = 20 then
      return false;
    end if;
    perform pg_sleep(0.01);
  end loop;
  if exists (select from pgsaga.saga s where s.id between first_id and last_id) then
    return false;
  end if;
  execute format('drop table pgsaga.history_%s', part);
  return true;
exception when lock_not_available then
  return false;
end
$$;
revoke all on function pgsaga.drop_history_partition from public;
grant execute on function pgsaga.drop_history_partition to pgsaga_worker;
