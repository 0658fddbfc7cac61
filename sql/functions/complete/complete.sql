-- version 1: expands

-- Reports how an op ended that nobody calls, or that a participant has accepted (202 with
-- Saga-Wait-Seconds): `success`, with an answer for later steps, or `failure`, with a comment that
-- says why. `ongoing` makes the wait begin anew. Returns the saga's status.
--
-- A step that waits can be completed at any time, also before its turn, but not once its saga rolls
-- back; a called op from its first claim on. The first completion of an op counts. The same again
-- changes nothing, also after the saga's end, because a caller repeats what it has no reply to.
-- Another one, and one for an op that is over, is refused with SQLSTATE 55000.
--
-- The task bears the completion beside its interrupt, and settles that did not know it plan anew.
-- A task that a worker holds keeps everything else.
create or replace function pgsaga.complete(gid text, step text, outcome text, answer jsonb default null, comment text default null, op text default null)
returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
  t pgsaga.task;
  place int;
  key text;
  told text;        -- what was reported before
  pivot int;
  waits boolean;    -- nobody is called
  is_new boolean;   -- the op has no task and is not stuck
begin
  perform pgsaga.check_completion(outcome, answer, comment, op);
  op := coalesce(op, 'action');
  -- control: complete-saga-lock
  select * into s from pgsaga.saga where saga.gid = complete.gid for no key update;
  if not found then
    raise exception using errcode = 'no_data_found', message = format('no saga has the gid %s', to_json(coalesce(gid, 'null')));
  end if;
  place := pgsaga.position_of(s, step);
  key := place || '/' || op;
  told := s.completions ->> key;
  if told = outcome and answer is not distinct from (
    select h.answer from pgsaga.history h
    where h.saga_id = s.id and h.kind = 'completion' and h.step = place and h.op = complete.op and h.outcome <> 'ongoing' order by h.seq desc limit 1)
  then
    return s.status;
  end if;
  if told is not null then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('the %s of step %s of saga %s was completed as %s: the first completion counts', op, to_json(step), s.gid, told);
  end if;

  -- Claims and advances in place change tasks and leave the saga's row alone.
  -- control: complete-task-lock
  perform from pgsaga.task k where k.saga_id = s.id order by k.id for update;
  select * into t from pgsaga.task where saga_id = s.id and task.step = place and task.op = complete.op;
  pivot := pgsaga.pivot_of(s.steps);
  waits := pgsaga.wait_of(s.steps, place, op) is not null;
  is_new := t.id is null and not exists (
    select from pgsaga.stuck k where k.saga_id = s.id and pgsaga.stuck_position(s, k.step, k.position) = place and coalesce(k.op, 'action') = complete.op);
  if s.finished_at is not null then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('saga %s has %s: nothing of it can be completed any more', s.gid, s.status);
  elsif is_new and not (waits and substr(s.progress, place, 1) = '.') then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('the %s of step %s of saga %s is over, or has not begun', op, to_json(step), s.gid);
  -- control: complete-before-unwind
  elsif is_new and (s.status = 'aborting' or s.status = 'stuck' and s.abort_reason is not null and coalesce(substr(s.progress, pivot, 1) not in ('a', 's', 'd'), true)) then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('step %s of saga %s never begins: the saga rolls back', to_json(step), s.gid);
  -- control: complete-called-only
  elsif not waits and t.worker is null and t.attempt = 1 then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('the %s of step %s of saga %s was not called yet', op, to_json(step), s.gid);
  elsif outcome = 'ongoing' and not coalesce(t.worker is null and t.completion is null and t.interrupt is null and t.wait_ends_at > clock_timestamp(), false) then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('the %s of step %s of saga %s does not wait: only a wait that has not ended can begin anew', op, to_json(step), s.gid);
  end if;

  perform pgsaga.prepare_history(s.id);
  insert into pgsaga.history (saga_id, kind, step, op, outcome, message, decided_by, answer)
    values (s.id, 'completion', place, op, outcome, comment, pgsaga.decider(), answer);
  if outcome = 'ongoing' then
    update pgsaga.task set wait_ends_at = clock_timestamp() + wait, run_at = least(clock_timestamp() + wait, deadline) where id = t.id;
    return s.status;
  end if;

  if not is_new and t.id is null then
    -- The op is stuck. It goes on with the completion, as it does after a person's retry.
    perform pgsaga.unstick(s, step, null);
    s.status := pgsaga.unstuck_status(s);
  end if;
  update pgsaga.task
    -- control: complete-mark
    set completion = complete.outcome,
        run_at = case when worker is null then pgsaga.due_now(run_at) else run_at end,
        -- Any worker may plan it, whoever serves its participant.
        -- control: complete-lane
        lane = case when worker is null then pgsaga.lane_of(lane, '') else lane end,
        participant = case when worker is null then '' else participant end
    where saga_id = s.id and task.step = place and task.op = complete.op;
  update pgsaga.saga
    set completions = coalesce(completions, '{}') || jsonb_build_object(key, outcome),
        -- control: complete-reported
        progress = case when is_new and outcome = 'success' then overlay(progress placing 'r' from place for 1) else progress end,
        -- control: complete-version
        version = case when version < 2147483647 then version + 1 else 0 end
    where id = s.id;
  perform pg_notify('pgsaga', '');
  return s.status;
end
$$;
revoke all on function pgsaga.complete from public;
grant execute on function pgsaga.complete to pgsaga_completer, pgsaga_worker, pgsaga_operator;
