-- version 1: expands

-- Creates up to 16 history partitions, of a million saga ids each, and returns their number. A
-- caller repeats the call until it returns 0.
--
-- A partition is needed if a saga has such an id. The eight partitions behind it are made ahead,
-- unless the sequence has passed them. Ids that were drawn and not used, for example by
-- `on conflict (gid) do nothing` or a setval, need none. So a jump of the sequence costs the
-- partitions of the sagas behind it. Without any partition, the sequence stands for a saga.
--
-- ATTACH takes only SHARE UPDATE EXCLUSIVE on the parent, so running settles do not wait;
-- CREATE … PARTITION OF would block them. Each ATTACH costs time that grows with the number of
-- partitions, hence the bound. Index: saga_pkey, one look for each million ids that sagas have.
create or replace function pgsaga.make_history_partitions() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  width constant bigint := 1000000;
  newest constant bigint := 9223372036854775807 / width; -- the partition of the largest bigint
  ahead constant int := 8;
  made_max constant int := 16;
  missing bigint[];
  n bigint;
  made int := 0;
begin
  with recursive used (part) as (
    (select s.id / width from pgsaga.saga s order by s.id limit 1)
    union all
    select (select s.id / width from pgsaga.saga s where s.id >= (u.part + 1) * width order by s.id limit 1)
    from used u where u.part < newest
  ), given as (
    select q.last_value / width as part from pgsaga.saga_id_seq q
  ), needed as (
    select u.part from used u where u.part is not null
    union
    -- control: partitions-used
    select g.part from given g where not exists (select from pg_inherits i where i.inhparent = 'pgsaga.history'::regclass)
  ), wanted as (
    select n.part, false as is_ahead from needed n
    union
    select least(n.part + k, newest), true from needed n cross join generate_series(1, ahead) k cross join given g
    where n.part + k >= g.part
  )
  select array_agg(w.part) into missing from (
    select w.part from wanted w
    where to_regclass(format('pgsaga.history_%s', w.part)) is null
    group by w.part order by bool_and(w.is_ahead), w.part limit made_max
  ) w;
  foreach n in array coalesce(missing, '{}') loop
    perform set_config('lock_timeout', '2s', true);
    perform pg_advisory_xact_lock(8101820131131282);
    if to_regclass(format('pgsaga.history_%s', n)) is null then
      execute format('create table pgsaga.history_%s (like pgsaga.history including defaults including constraints)', n);
      execute format('alter table pgsaga.history attach partition pgsaga.history_%s for values from (%s) to (%s)',
                     n, n * width, case when n < newest then ((n + 1) * width)::text else 'maxvalue' end);
      made := made + 1;
    end if;
  end loop;
  return made;
end
$$;
revoke all on function pgsaga.make_history_partitions from public;
grant execute on function pgsaga.make_history_partitions to pgsaga_worker;

-- A new database has partitions before its first worker starts.
do $$ begin perform pgsaga.make_history_partitions(); end $$;
