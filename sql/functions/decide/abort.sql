-- version 1: expands

-- Aborts a saga: no new forward step starts, and what was done is compensated. Aborting a saga that
-- is aborting changes nothing. While the saga's pivot runs, the pivot's definite outcome decides.
-- After the pivot the function refuses.
create or replace function pgsaga.abort(gid text, reason text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
  pivot int;
  at int;
  awaited boolean;
  why text;
begin
  perform pgsaga.check_comment(reason, 'reason');
  s := pgsaga.lock_saga(gid);
  pivot := pgsaga.pivot_of(s.steps);
  select min(t.step) into at from (
    select t.step from pgsaga.task t where t.saga_id = s.id union all select k.position from pgsaga.stuck k where k.saga_id = s.id
  ) t;
  if s.ending is null and pgsaga.is_past_pivot(s, at) then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('saga %s is past its pivot %s: it only goes forward', s.gid, to_json(pgsaga.step_name(s.steps, pivot)));
  end if;
  if s.abort_reason is not null or s.ending is not null then
    return s.status;
  end if;
  -- control: abort-awaits-pivot
  awaited := coalesce(at = pivot, false);
  why := pgsaga.current_step_name(s) || ': aborted: ' || reason;
  perform pgsaga.record_decision(s, 'abort', null, reason);
  perform pgsaga.unstick(s, null, 'unwind');
  update pgsaga.task t
    set interrupt = 'unwind', run_at = case when t.worker is null then pgsaga.due_now(t.run_at) else t.run_at end,
        -- Any worker may plan it, whoever serves its participant.
        -- control: abort-lane
        lane = case when t.worker is null then pgsaga.lane_of(t.lane, '') else t.lane end
    -- control: abort-interrupts
    where t.saga_id = s.id and t.op = 'action';
  perform pgsaga.check_goes_on(s);
  update pgsaga.saga
    set abort_reason = why,
        status = case when awaited then 'submitted' else 'aborting' end,
        reason = case when awaited then null else why end
    where id = s.id;
  return case when awaited then 'submitted' else 'aborting' end;
end
$$;
revoke all on function pgsaga.abort from public;
grant execute on function pgsaga.abort to pgsaga_producer, pgsaga_operator;
