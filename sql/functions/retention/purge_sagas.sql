-- version 1: expands

-- Deletes finished sagas with ids from `after` (exclusive) to `below` (exclusive) that ended longer
-- ago than `older_than`. Examines only the first `most` of them (saga_pkey). Skips locked rows.
--
-- Retention deletes a saga first and its history afterwards. A reader may see history without its
-- saga, which is harmless, but never a finished saga without its history.
create or replace function pgsaga.purge_sagas(
  older_than interval, after bigint, below bigint, most int,
  out purged int,     -- sagas deleted
  out walked int,     -- sagas examined: fewer than `most` at the end
  out last_id bigint, -- the last saga looked at
  out kept_id bigint, -- the first saga that stays
  out young boolean   -- all were inserted too late, and so were those behind them
)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  -- Even a role that may call this function cannot delete sagas that have just ended.
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
    -- A time beyond the year 9999 was set by hand, so it does not prove that later sagas are young.
    coalesce(bool_and(l.created_at >= cutoff and l.created_at < '10000-01-01 00:00:00+00'), false)
  into purged, walked, last_id, kept_id, young
  from looked_at l left join gone g on g.id = l.id;
end
$$;
revoke all on function pgsaga.purge_sagas from public;
grant execute on function pgsaga.purge_sagas to pgsaga_worker;
