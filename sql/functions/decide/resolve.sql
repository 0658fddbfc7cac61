-- version 1: expands

-- Ends a saga with the status that a person has made sure of.
create or replace function pgsaga.resolve(gid text, status text, comment text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
begin
  if status is null or status not in ('succeeded', 'failed') then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('status: found %s; allowed: ''succeeded'' or ''failed''', coalesce(quote_literal(status), 'nothing'));
  end if;
  perform pgsaga.check_comment(comment, 'comment');
  s := pgsaga.lock_saga(gid);
  perform pgsaga.check_not_ending(s);
  perform pgsaga.record_decision(s, 'resolve', null, status || ': ' || comment);
  return pgsaga.end_saga(s, status, pgsaga.current_step_name(s) || ': resolved: ' || comment);
end
$$;
revoke all on function pgsaga.resolve from public;
grant execute on function pgsaga.resolve to pgsaga_operator;
