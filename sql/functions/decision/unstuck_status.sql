-- version 1: expands

-- Sets and returns the status of a saga after some of its stuck steps were queued again.
create or replace function pgsaga.unstuck_status(s pgsaga.saga) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  forward boolean;
begin
  if exists (select from pgsaga.stuck where saga_id = s.id) then
    update pgsaga.saga
      set status = 'stuck', reason = (select k.reason from pgsaga.stuck k where k.saga_id = s.id order by k.position limit 1)
      where id = s.id;
    return 'stuck';
  end if;
  perform pgsaga.check_goes_on(s);
  forward := exists (select from pgsaga.task where saga_id = s.id and op = 'action');
  update pgsaga.saga set status = case when forward then 'submitted' else 'aborting' end,
                         reason = case when forward then null else coalesce(abort_reason, reason) end
    where id = s.id;
  return case when forward then 'submitted' else 'aborting' end;
end
$$;
revoke all on function pgsaga.unstuck_status from public;
