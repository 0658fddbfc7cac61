-- version 1: expands

-- Ends a saga: immediately if no call is in flight, else when the last call has ended. A task whose
-- worker has no row does not count as a call in flight, because no worker would report its end.
create or replace function pgsaga.end_saga(s pgsaga.saga, status text, why text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  delete from pgsaga.stuck where saga_id = s.id;
  -- control: end-waits-for-call
  if exists (select from pgsaga.task t join pgsaga.worker w on w.id = t.worker where t.saga_id = s.id) then
    update pgsaga.task
      set interrupt = 'end', run_at = case when worker is null then pgsaga.due_now(run_at) else run_at end,
          lane = case when worker is null then pgsaga.lane_of(lane, '') else lane end
      where saga_id = s.id;
    update pgsaga.saga
      set ending = end_saga.status, abort_reason = case when end_saga.status = 'failed' then why else abort_reason end,
          progress = translate(progress, 'sx', 'mm'),
          status = case when end_saga.status = 'failed' then 'aborting' when saga.status = 'stuck' then 'submitted' else saga.status end,
          reason = case when end_saga.status = 'failed' then why when saga.status in ('aborting', 'failed') then saga.reason end
      where id = s.id;
  else
    delete from pgsaga.task where saga_id = s.id;
    update pgsaga.saga
      set status = end_saga.status, reason = case when end_saga.status = 'failed' then why end,
          abort_reason = case when end_saga.status = 'failed' then why else abort_reason end,
          finished_at = clock_timestamp()
      where id = s.id;
  end if;
  return (select saga.status from pgsaga.saga where id = s.id);
end
$$;
revoke all on function pgsaga.end_saga from public;
