-- version 1: expands

-- Makes the history partition of a saga, if no worker has done so. Statements of workers do not
-- call it, because workers make the partitions ahead.
create or replace function pgsaga.prepare_history(saga_id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- control: decision-partition
  if to_regclass(format('pgsaga.history_%s', saga_id / 1000000)) is null then
    perform pgsaga.make_history_partitions();
  end if;
end
$$;
revoke all on function pgsaga.prepare_history from public;
