-- version 1: expands

-- Takes a decision by its word, for the commands and the web page, and returns the status. Whoever
-- calls it needs the right to execute the function of that decision.
create or replace function pgsaga.decide(gid text, decision text, step text, comment text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  case decision
    when 'retry' then return pgsaga.retry(gid, comment);
    when 'retry-fresh' then return pgsaga.retry(gid, comment, true);
    when 'skip' then return pgsaga.skip(gid, step, comment);
    when 'resolve-succeeded' then return pgsaga.resolve(gid, 'succeeded', comment);
    when 'resolve-failed' then return pgsaga.resolve(gid, 'failed', comment);
    when 'abort' then return pgsaga.abort(gid, comment);
    when 'force' then return pgsaga.force(gid, comment);
    when 'complete-success', 'complete-failure' then
      -- The op of the step that is queued or stuck.
      return pgsaga.complete(gid, step, substr(decision, 10), comment => comment, op => (
        select stands.op from pgsaga.saga s
        cross join lateral (
          select t.op, t.step as position from pgsaga.task t where t.saga_id = s.id
          union all
          select k.op, k.position from pgsaga.stuck k where k.saga_id = s.id
        ) stands
        where s.gid = decide.gid and coalesce(s.steps -> (stands.position - 1) ->> 'name', lpad(stands.position::text, greatest(2, length(stands.position::text)), '0')) = decide.step
        limit 1));
    else raise exception using errcode = 'invalid_parameter_value',
      message = format('decision: found %s; allowed: retry, retry-fresh, skip, resolve-succeeded, resolve-failed, abort, force, complete-success, complete-failure',
                       coalesce(to_json(left(decision, 64))::text, 'nothing'));
  end case;
end
$$;
revoke all on function pgsaga.decide from public;
grant execute on function pgsaga.decide to pgsaga_producer, pgsaga_operator;
