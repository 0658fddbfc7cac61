-- version 1: expands

-- Deletes rows of one history partition whose saga no longer exists, up to saga `last_id`. Examines
-- only the first `most` rows after (`after_id`, `after_seq`). Does nothing if the whole partition
-- is about to be dropped: none of its sagas exists, or the newest one is within a tenth of the age
-- at which it will be deleted.
create or replace function pgsaga.purge_history(
  older_than interval, part bigint, after_id bigint, after_seq bigint, last_id bigint, most int,
  out purged int,
  out walked int,      -- rows examined: fewer than `most` at the end, null before a drop
  out walked_id bigint, out walked_seq bigint, -- the last row examined
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
  -- History rows are never updated, so a ctid stays valid until its row is deleted.
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
revoke all on function pgsaga.purge_history from public;
grant execute on function pgsaga.purge_history to pgsaga_worker;
