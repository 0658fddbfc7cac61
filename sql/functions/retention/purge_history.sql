-- version 1: expands

-- Deletes rows of one history partition whose saga no longer exists, up to saga `last_id`. Examines
-- only the first `most` rows after (`after_id`, `after_seq`). Does nothing if the whole partition
-- is about to be dropped: none of its sagas exists, or the newest one is within a tenth of the age
-- at which it will be deleted.
--
-- A foreign key or a trigger of somebody else may refuse a delete. After an error the rows are
-- deleted saga by saga, so that the others go.
create or replace function pgsaga.purge_history(
  older_than interval, part bigint, after_id bigint, after_seq bigint, last_id bigint, most int,
  out purged int,
  out walked int,      -- rows examined: fewer than `most` at the end, null before a drop
  out walked_id bigint, out walked_seq bigint, -- the last row examined
  out kept_id bigint,  -- the first saga whose history stays
  out refused int,     -- sagas whose history the database did not delete
  out refused_id bigint, out refused_why text -- the first of them, and what the database said of it
)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
  part_first_id constant bigint := part * 1000000;
  part_last_id constant bigint := part_first_id + least(999999, 9223372036854775807 - part_first_id);
  cutoff constant timestamptz := clock_timestamp() - older_than;
  newest timestamptz;
  rows_of_one constant text := format($sql$
    delete from pgsaga.history_%s where saga_id = $1 and (saga_id, seq) > ($2, $3) and (saga_id, seq) <= ($4, $5)
  $sql$, part);
  places tid[];
  left_over bigint[];
  one bigint;
  deleted int;
begin
  purged := 0;
  refused := 0;
  select s.created_at into newest from pgsaga.saga s
    where s.id between part_first_id and part_last_id order by s.id desc limit 1;
  if (select q.last_value from pgsaga.saga_id_seq q) > part_last_id
     and (newest is null or newest between cutoff - older_than / 10 and cutoff + older_than / 10)
     or to_regclass(format('pgsaga.history_%s', part)) is null then
    return;
  end if;
  set constraints all immediate;
  -- History rows are never updated, so a ctid stays valid until its row is deleted.
  execute format($sql$
    with looked_at as materialized (
      select h.ctid as place, h.saga_id, h.seq from pgsaga.history_%s h
      where (h.saga_id, h.seq) > ($1, $2) and h.saga_id <= $3 order by h.saga_id, h.seq limit $4
    ), left_over as materialized (
      select d.saga_id from (select distinct l.saga_id from looked_at l) d
      -- control: purge-history-left-over
      where not exists (select from pgsaga.saga s where s.id = d.saga_id)
    )
    select array(select l.place from looked_at l where l.saga_id in (select o.saga_id from left_over o)),
      array(select o.saga_id from left_over o order by 1), count(*), max(l.saga_id),
      (select w.seq from looked_at w order by w.saga_id desc, w.seq desc limit 1),
      min(l.saga_id) filter (where l.saga_id not in (select o.saga_id from left_over o))
    from looked_at l
  $sql$, part) into places, left_over, walked, walked_id, walked_seq, kept_id using after_id, after_seq, last_id, most;
  begin
    execute format('delete from pgsaga.history_%s h where h.ctid = any ($1)', part) using places;
    get diagnostics purged = row_count;
    if purged < cardinality(places) then
      execute format('select count(distinct h.saga_id), min(h.saga_id) from pgsaga.history_%s h where h.ctid = any ($1)', part)
        into refused, refused_id using places;
      refused_why := 'a trigger kept it and raised no error';
    end if;
  -- control: purge-other-history
  exception when others then
    foreach one in array left_over loop
      begin
        execute rows_of_one using one, after_id, after_seq, walked_id, walked_seq;
        get diagnostics deleted = row_count;
        purged := purged + deleted;
      exception when others then
        refused := refused + 1;
        refused_id := coalesce(refused_id, one);
        refused_why := coalesce(refused_why, sqlerrm);
      end;
    end loop;
  end;
  kept_id := least(kept_id, refused_id);
end
$$;
revoke all on function pgsaga.purge_history from public;
grant execute on function pgsaga.purge_history to pgsaga_worker;
