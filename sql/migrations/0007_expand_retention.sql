-- Retention: functions that delete what finished long ago, for workers that are told to (`pgsaga work --retention`). Nothing
-- here changes a table or what earlier statements mean, so workers of schema versions 5 and 6 go on beside it.
--
-- A finished saga goes first, its history after it, by rows or with its whole partition: whoever looks meanwhile sees history
-- without its saga, which belongs to nothing, and never a finished saga without its history.

-- Deletes finished sagas with ids from `after` (exclusive) to `below` (exclusive) that ended longer ago than `older_than`.
-- Looks at the first `most` of them only (saga_pkey), waits for no row, and leaves the others as they are.
create function pgsaga.purge_sagas(
  older_than interval, after bigint, below bigint, most int,
  out purged int,     -- how many went
  out walked int,     -- how many were looked at: fewer than `most` when no more are there
  out last_id bigint, -- the last of those
  out kept_id bigint, -- the first that stays
  out young boolean   -- all were inserted too short ago: so were those behind them
)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  -- A right to run this is not a right to delete what has just ended.
  least_age constant interval := interval '1 minute';
  cutoff constant timestamptz := clock_timestamp() - older_than;
begin
  -- control: purge-age
  if not coalesce(older_than >= least_age, false) then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('older_than: found %s; allowed: 1 minute or more', coalesce(older_than::text, 'nothing'));
  end if;
  with looked_at as materialized (
    select s.id, s.created_at, s.finished_at from pgsaga.saga s where s.id > after and s.id < below order by s.id limit most
  ), locked as materialized (
    select s.id from pgsaga.saga s
    -- control: purge-finished
    where s.id = any (array(select l.id from looked_at l where l.finished_at < cutoff)) and s.finished_at < cutoff
    -- control: purge-lock
    for update skip locked
  ), gone as (
    delete from pgsaga.saga s where s.id = any (array(select l.id from locked l)) returning s.id
  )
  select (select count(*) from gone), count(*), max(l.id), min(l.id) filter (where g.id is null),
    -- A time that no INSERT can have given was set by hand, so it does not prove that later sagas
    -- are young.
    coalesce(bool_and(l.created_at >= cutoff and l.created_at < '10000-01-01 00:00:00+00'), false)
  into purged, walked, last_id, kept_id, young
  from looked_at l left join gone g on g.id = l.id;
end
$$;

-- Deletes rows of one history partition whose saga is gone, up to saga `last_id`; looks at the first `most` behind
-- (`after_id`, `after_seq`) only. Does nothing where the whole partition is soon dropped: no saga of it is left, or the
-- newest that is left is as old as its history may get, give or take a tenth.
create function pgsaga.purge_history(
  older_than interval, part bigint, after_id bigint, after_seq bigint, last_id bigint, most int,
  out purged int,
  out walked int,      -- how many were looked at: fewer than `most` when no more are there; null where it is soon dropped
  out walked_id bigint, out walked_seq bigint, -- the last of those
  out kept_id bigint   -- the first saga whose history stays
)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  width constant bigint := 1000000;
  cutoff constant timestamptz := clock_timestamp() - older_than;
  newest timestamptz;
begin
  purged := 0;
  select s.created_at into newest from pgsaga.saga s
    where s.id >= part * width and s.id < (part + 1) * width order by s.id desc limit 1;
  if (select q.last_value from pgsaga.saga_id_seq q) >= (part + 1) * width
     and (newest is null or newest between cutoff - older_than / 10 and cutoff + older_than / 10)
     or to_regclass(format('pgsaga.history_%s', part)) is null then
    return;
  end if;
  -- A row of history is never updated: what was found is at its place, or gone.
  execute format($sql$
    with looked_at as materialized (
      select h.ctid as place, h.saga_id, h.seq from pgsaga.history_%1$s h
      where (h.saga_id, h.seq) > ($1, $2) and h.saga_id <= $3 order by h.saga_id, h.seq limit $4
    ), left_over as materialized (
      select d.saga_id from (select distinct l.saga_id from looked_at l) d
      -- control: purge-history-left-over
      where not exists (select from pgsaga.saga s where s.id = d.saga_id)
    ), gone as (
      delete from pgsaga.history_%1$s h
      where h.ctid = any (array(select l.place from looked_at l where l.saga_id in (select o.saga_id from left_over o)))
      returning h.saga_id
    )
    select (select count(*) from gone), count(*), max(l.saga_id),
      (select w.seq from looked_at w order by w.saga_id desc, w.seq desc limit 1),
      min(l.saga_id) filter (where l.saga_id not in (select o.saga_id from left_over o))
    from looked_at l
  $sql$, part) into purged, walked, walked_id, walked_seq, kept_id using after_id, after_seq, last_id, most;
end
$$;

-- Drops a history partition when no saga of it is left, and none can come. False where that is not so, or where somebody
-- is in the way: an insert of a saga that is older than this look, or a lock on the history that is held for longer than a
-- moment. While it waits for the lock, settles wait behind it.
create function pgsaga.drop_history_partition(part bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
  width constant bigint := 1000000;
  inserting text[];
begin
  -- Each look below must be newer than what it waited for.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'invalid_transaction_state', message = 'drop_history_partition needs READ COMMITTED';
  end if;
  -- Ids of it are still given, or it is not there.
  -- control: drop-partition-ahead
  if (select q.last_value from pgsaga.saga_id_seq q) < (part + 1) * width
     or to_regclass(format('pgsaga.history_%s', part)) is null
     or exists (select from pgsaga.saga s where s.id >= part * width and s.id < (part + 1) * width) then
    return false;
  end if;
  -- Whoever has got one of its ids, and has not committed, holds this lock. A prepared transaction holds it under another name.
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
  if exists (select from pgsaga.saga s where s.id >= part * width and s.id < (part + 1) * width) then
    return false;
  end if;
  execute format('drop table pgsaga.history_%s', part);
  return true;
exception when lock_not_available then
  return false;
end
$$;

revoke all on function pgsaga.purge_sagas(interval, bigint, bigint, int),
  pgsaga.purge_history(interval, bigint, bigint, bigint, bigint, int),
  pgsaga.drop_history_partition(bigint) from public;
grant execute on function pgsaga.purge_sagas(interval, bigint, bigint, int),
  pgsaga.purge_history(interval, bigint, bigint, bigint, bigint, int),
  pgsaga.drop_history_partition(bigint) to pgsaga_worker;
