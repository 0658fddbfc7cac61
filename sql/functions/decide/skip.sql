-- version 1: expands

-- Counts the current op of a step as done. A call of the op that is in flight ends first; its
-- answer is recorded and changes nothing.
create or replace function pgsaga.skip(gid text, step text, comment text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
  at int;
  standing text;
begin
  perform pgsaga.check_comment(comment, 'comment');
  s := pgsaga.lock_saga(gid);
  perform pgsaga.check_not_ending(s);
  at := pgsaga.position_of(s, step);
  if pgsaga.unstick(s, skip.step, 'skip') = 0 then
    if exists (select from pgsaga.task t where t.saga_id = s.id and t.step = at and t.interrupt = 'unwind'
               and s.steps -> (at - 1) -> 'pivot' is distinct from 'true') then
      raise exception using errcode = 'object_not_in_prerequisite_state',
        message = format('step %s of saga %s is not tried again: the saga rolls back', to_json(skip.step), s.gid);
    end if;
    update pgsaga.task t
      set interrupt = 'skip', run_at = case when t.worker is null then pgsaga.due_now(t.run_at) else t.run_at end,
          lane = case when t.worker is null then pgsaga.lane_of(t.lane, '') else t.lane end
      -- Only tasks whose `interrupt` changes: a settle would not notice any other update.
      where t.saga_id = s.id and t.step = at and t.interrupt is distinct from 'skip';
    if not found and not exists (select from pgsaga.task t where t.saga_id = s.id and t.step = at) then
      select string_agg(to_json(pgsaga.step_name(s.steps, stands.step))::text, ', ' order by stands.step) into standing
        from (select t.step from pgsaga.task t where t.saga_id = s.id union select k.position from pgsaga.stuck k where k.saga_id = s.id) stands;
      raise exception using errcode = 'object_not_in_prerequisite_state',
        message = format('step %s of saga %s neither runs nor is stuck; allowed: %s', to_json(skip.step), s.gid, standing);
    end if;
  end if;
  perform pgsaga.record_decision(s, 'skip', at, comment);
  if s.status = 'stuck' then
    return pgsaga.unstuck_status(s);
  end if;
  return s.status;
end
$$;
revoke all on function pgsaga.skip from public;
grant execute on function pgsaga.skip to pgsaga_operator;
