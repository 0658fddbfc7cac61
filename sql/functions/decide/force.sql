-- version 1: expands

-- Ends a saga as failed without compensating anything, as DTM's force stop does.
create or replace function pgsaga.force(gid text, comment text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
begin
  perform pgsaga.check_comment(comment, 'comment');
  s := pgsaga.lock_saga(gid);
  perform pgsaga.check_not_ending(s);
  perform pgsaga.record_decision(s, 'force', null, comment);
  return pgsaga.end_saga(s, 'failed', pgsaga.current_step_name(s) || ': stopped without compensating: ' || comment);
end
$$;
revoke all on function pgsaga.force from public;
grant execute on function pgsaga.force to pgsaga_operator;
