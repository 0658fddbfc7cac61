-- version 1: expands

-- Keeps eight history partitions of a million sagas ahead of the newest saga id. Returns the number
-- of partitions that it created. ATTACH takes only SHARE UPDATE EXCLUSIVE on the parent, so running
-- settles do not wait; CREATE … PARTITION OF would block them.
create or replace function pgsaga.make_history_partitions() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  width constant bigint := 1000000;
  first bigint;
  newest bigint;
  made int := 0;
begin
  select last_value / width into newest from pgsaga.saga_id_seq;
  -- Starts after the last partition and leaves no gap, because millions of sagas may have been
  -- inserted while no worker ran.
  select coalesce(max(substring(c.relname from '[0-9]+$')::bigint) + 1, 0) into first
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'pgsaga.history'::regclass;
  for n in first .. newest + 8 loop
    if to_regclass(format('pgsaga.history_%s', n)) is null then
      perform set_config('lock_timeout', '2s', true);
      perform pg_advisory_xact_lock(8101820131131282);
      if to_regclass(format('pgsaga.history_%s', n)) is null then
        execute format('create table pgsaga.history_%s (like pgsaga.history including defaults including constraints)', n);
        execute format('alter table pgsaga.history attach partition pgsaga.history_%s for values from (%s) to (%s)',
                       n, n * width, (n + 1) * width);
        made := made + 1;
      end if;
    end if;
  end loop;
  return made;
end
$$;
revoke all on function pgsaga.make_history_partitions from public;
grant execute on function pgsaga.make_history_partitions to pgsaga_worker;

-- A new database has partitions before its first worker starts.
do $$ begin perform pgsaga.make_history_partitions(); end $$;
