-- version 1: expands

-- Deletes finished sagas with ids from `after` (exclusive) to `below` (exclusive) that ended longer
-- ago than `older_than`. Examines only the first `most` of them (saga_pkey). Skips locked rows.
--
-- A foreign key or a trigger of somebody else may refuse the delete of a saga, or keep the saga
-- without a word. After an error the sagas are deleted one by one, so that the others go.
-- Constraints are checked at once, because an error at the commit would name no saga.
--
-- Retention deletes a saga first and its history afterwards. A reader may see history without its
-- saga, which is harmless, but never a finished saga without its history.
create or replace function pgsaga.purge_sagas(
  older_than interval, after bigint, below bigint, most int,
  out purged int,       -- sagas deleted
  out walked int,       -- sagas examined: fewer than `most` at the end
  out last_id bigint,   -- the last saga looked at
  out kept_id bigint,   -- the first saga that stays
  out young boolean,    -- all were inserted too late, and so were those behind them
  out refused int,      -- sagas that the database did not delete
  out refused_gid text, -- the first of them
  out refused_why text  -- what the database said of it
)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
  -- Even a role that may call this function cannot delete sagas that have just ended.
  least_age constant interval := interval '1 minute';
  cutoff constant timestamptz := clock_timestamp() - older_than;
  looked_at bigint[];
  old bigint[];
  gone bigint[];
  stays bigint;
  one bigint;
begin
  -- control: purge-age
  if not coalesce(older_than >= least_age, false) then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('older_than: found %s; allowed: 1 minute or more', coalesce(older_than::text, 'nothing'));
  end if;
  set constraints all immediate;
  with looked as materialized (
    select s.id, s.created_at, s.finished_at from pgsaga.saga s where s.id > after and s.id < below order by s.id limit most
  ), locked as materialized (
    select s.id from pgsaga.saga s
    -- control: purge-finished
    where s.id = any (array(select l.id from looked l where l.finished_at < cutoff)) and s.finished_at < cutoff
    -- control: purge-lock
    for update skip locked
  )
  select count(*), max(l.id), array_agg(l.id), array(select k.id from locked k order by k.id),
    -- A time beyond the year 9999 was set by hand, so it does not prove that later sagas are young.
    coalesce(bool_and(l.created_at >= cutoff and l.created_at < '10000-01-01 00:00:00+00'), false)
  into walked, last_id, looked_at, old, young
  from looked l;
  begin
    with deleted as (
      delete from pgsaga.saga s where s.id = any (old) returning s.id
    )
    select coalesce(array_agg(d.id), '{}') into gone from deleted d;
  -- control: purge-others
  exception when others then
    gone := '{}';
    foreach one in array old loop
      begin
        delete from pgsaga.saga s where s.id = one;
        if found then
          gone := gone || one;
        end if;
      exception when others then
        refused_why := coalesce(refused_why, sqlerrm);
      end;
    end loop;
  end;
  purged := cardinality(gone);
  refused := cardinality(old) - purged;
  select min(i) into kept_id from unnest(looked_at) i where i <> all (gone);
  if refused > 0 then
    select min(i) into stays from unnest(old) i where i <> all (gone);
    select s.gid into refused_gid from pgsaga.saga s where s.id = stays;
    refused_why := coalesce(refused_why, 'a trigger kept it and raised no error');
  end if;
end
$$;
revoke all on function pgsaga.purge_sagas from public;
grant execute on function pgsaga.purge_sagas to pgsaga_worker;
