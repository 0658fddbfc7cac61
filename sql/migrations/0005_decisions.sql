-- What people decide. Each function locks the saga, then its tasks, records the decision in the history, and has taken
-- effect when it returns; it answers with the saga's status afterwards. What follows from a decision is planned by workers:
-- a task that a function marks (`interrupt`) is not called, the worker that meets the mark plans anew. A call in flight ends first.
--
-- SQLSTATEs: P0002 no such saga, step or queue; 55000 the saga's state does not allow it; 22023 a bad argument.

-- Locks the saga and its tasks. Waits for settles under way: after it returns, none of them changes this saga.
create function pgsaga.lock_saga(gid text) returns pgsaga.saga
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
begin
  -- control: decision-saga-lock
  select * into s from pgsaga.saga where saga.gid = lock_saga.gid for no key update;
  if not found then
    raise exception using errcode = 'no_data_found', message = format('no saga has the gid %s', to_json(coalesce(gid, 'null')));
  end if;
  if s.finished_at is not null then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('saga %s has %s: nothing can be decided about it any more', s.gid, s.status);
  end if;
  perform from pgsaga.task t where t.saga_id = s.id order by t.id for update;
  return s;
end
$$;

-- The name of a step.
create function pgsaga.step_name(steps jsonb, step int) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(steps -> (step - 1) ->> 'name', lpad(step::text, greatest(2, length(step::text)), '0'));
end
$$;

-- The steps of a saga; none where a row that was changed by hand has something else.
create function pgsaga.steps_of(steps jsonb) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return case when jsonb_typeof(steps) = 'array' then steps else '[]' end;
end
$$;

-- Where a saga stands, for the reasons of people's decisions: its first step that runs or is stuck.
create function pgsaga.standing_at(s pgsaga.saga) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return pgsaga.step_name(s.steps, coalesce(least(
    (select min(step) from pgsaga.task where saga_id = s.id), (select min(position) from pgsaga.stuck where saga_id = s.id)), 1));
end
$$;

-- The position of the pivot; null where there is none.
create function pgsaga.pivot_of(steps jsonb) returns int
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return (select position from jsonb_array_elements(pgsaga.steps_of(steps)) with ordinality as e (body, position)
          where body -> 'pivot' = 'true' limit 1);
end
$$;

-- Whether the step at `position` comes after a pivot that stands: from there a saga only goes forward.
create function pgsaga.is_past_pivot(s pgsaga.saga, at int) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  pivot constant int := pgsaga.pivot_of(s.steps);
begin
  return coalesce(case when s.progress is null then at > pivot else substr(s.progress, pivot, 1) = 'd' end, false);
end
$$;

-- Queues what is stuck again, from where it stopped. `step` null: all of the saga's stuck steps.
create function pgsaga.unstick(s pgsaga.saga, stuck_step text, mark text) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  moved int;
begin
  with unstuck as (
    delete from pgsaga.stuck k where k.saga_id = s.id and (stuck_step is null or k.step = stuck_step) returning k.*
  )
  insert into pgsaga.task (saga_id, step, op, attempt, unknown_before, last_outcome, format, bytes, lane, participant,
                           interrupt, deadline, epoch, run_at)
  select s.id, k.position, k.op, k.attempt, k.unknown_before, k.last_outcome, s.format, s.bytes,
    pgsaga.open_lane(s.queue, s.priority),
    coalesce(split_part(split_part(s.steps -> (k.position - 1) ->> k.op, '/', 3), '?', 1), ''),
    -- A pivot that an abort waits for is still awaited.
    coalesce(mark, case when k.op = 'action' and s.abort_reason is not null and not pgsaga.is_past_pivot(s, k.position) then 'turn' end),
    -- A person's retry is given its time: a deadline that has passed meanwhile would end it before its call.
    case when k.op = 'action' and s.deadline > clock_timestamp() and not pgsaga.is_past_pivot(s, k.position) then s.deadline end, k.epoch, clock_timestamp()
  from unstuck k;
  get diagnostics moved = row_count;
  if s.progress is not null then
    update pgsaga.saga set version = version + 1, progress = translate(progress, 'sx', 'ac')
      where id = s.id and stuck_step is null;
    update pgsaga.saga
      set version = version + 1,
          progress = overlay(progress placing translate(substr(progress, t.step, 1), 'sx', 'ac') from t.step for 1)
      from pgsaga.task t
      where saga.id = s.id and t.saga_id = s.id and stuck_step is not null and pgsaga.step_name(s.steps, t.step) = stuck_step;
  end if;
  return moved;
end
$$;

-- Where a stuck step stands: at its position, else where a step has its name, else at the first.
create function pgsaga.stuck_position(s pgsaga.saga, stuck_step text, stuck_position int) returns smallint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  steps constant jsonb := pgsaga.steps_of(s.steps);
begin
  if stuck_position between 1 and greatest(jsonb_array_length(steps), 1) then
    return stuck_position;
  end if;
  return coalesce((
    select position from jsonb_array_elements(steps) with ordinality as e (body, position)
    where coalesce(body ->> 'name', lpad(position::text, greatest(2, length(position::text)), '0')) = stuck_step and position <= 32767
    limit 1), 1);
end
$$;

-- A saga of which nothing is queued or stuck would be open for ever.
create function pgsaga.check_goes_on(s pgsaga.saga) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from pgsaga.task where saga_id = s.id) and not exists (select from pgsaga.stuck where saga_id = s.id) then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('saga %s: found no queued try and no stuck step; allowed: resolve or force, which end it', s.gid);
  end if;
end
$$;

-- The status of a saga of which nothing is stuck any more.
create function pgsaga.unstuck_status(s pgsaga.saga) returns text
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

create function pgsaga.record_decision(s pgsaga.saga, decision text, step int, comment text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into pgsaga.history (saga_id, kind, decision, decided_by, step, message)
    values (s.id, 'decision', record_decision.decision, session_user, record_decision.step, record_decision.comment);
  update pgsaga.saga set version = version + 1 where id = s.id;
  perform pg_notify('pgsaga', '');
end
$$;

-- A saga that a person has ended, and of which a call is still in flight.
create function pgsaga.check_not_ending(s pgsaga.saga) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  if s.ending is not null then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('saga %s ends as %s as soon as its last call has ended', s.gid, s.ending);
  end if;
end
$$;

create function pgsaga.check_comment(comment text, what text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  if coalesce(trim(comment), '') = '' or octet_length(comment) > 1024 then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('%s: found %s; allowed: 1 to 1,024 bytes that say why', what,
        case when coalesce(trim(comment), '') = '' then 'nothing' else octet_length(comment) || ' bytes' end);
  end if;
end
$$;

-- When a task is due that shall run at once: no later than now, and no earlier than claims look for
-- it.
create function pgsaga.at_once(run_at timestamptz) returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  return case when run_at >= 'epoch' then least(run_at, clock_timestamp()) else clock_timestamp() end;
end
$$;

-- Turns a saga back. Aborting one that turns back already changes nothing. While its pivot runs, the pivot's definite
-- outcome decides; after the pivot it is refused.
create function pgsaga.abort(gid text, reason text) returns text
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
  why := pgsaga.standing_at(s) || ': aborted: ' || reason;
  perform pgsaga.record_decision(s, 'abort', null, reason);
  perform pgsaga.unstick(s, null, 'turn');
  update pgsaga.task t
    set interrupt = 'turn', run_at = case when t.worker is null then pgsaga.at_once(t.run_at) else t.run_at end
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

-- Ends a saga as it stands: at once where no call is in flight, else when the last one has ended. A
-- task that is claimed by a worker without a row does not count as running, because no one would
-- ever report its end.
create function pgsaga.end_saga(s pgsaga.saga, status text, why text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  delete from pgsaga.stuck where saga_id = s.id;
  -- control: end-waits-for-call
  if exists (select from pgsaga.task t join pgsaga.worker w on w.id = t.worker where t.saga_id = s.id) then
    update pgsaga.task
      set interrupt = 'end', run_at = case when worker is null then pgsaga.at_once(run_at) else run_at end
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

-- Ends a saga as failed without compensating anything, as DTM's force stop does.
create function pgsaga.force(gid text, comment text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
begin
  perform pgsaga.check_comment(comment, 'comment');
  s := pgsaga.lock_saga(gid);
  perform pgsaga.check_not_ending(s);
  perform pgsaga.record_decision(s, 'force', null, comment);
  return pgsaga.end_saga(s, 'failed', pgsaga.standing_at(s) || ': stopped without compensating: ' || comment);
end
$$;

-- Ends a saga as a person has seen to it that it ended.
create function pgsaga.resolve(gid text, status text, comment text) returns text
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
  return pgsaga.end_saga(s, status, pgsaga.standing_at(s) || ': resolved: ' || comment);
end
$$;

-- Tries the stuck steps of a saga again, under the same idempotency keys; with `fresh_key` under new ones, which a
-- participant that remembers its refusal needs, and which is safe only where every try was definitely refused (RACES 22).
create function pgsaga.retry(gid text, comment text default null, fresh_key boolean default false) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
  k pgsaga.stuck;
  key text;
  keys jsonb;
  number numeric;
begin
  if comment is not null then
    perform pgsaga.check_comment(comment, 'comment');
  end if;
  s := pgsaga.lock_saga(gid);
  if s.status <> 'stuck' then
    -- What waits for its next try is tried now; a saga whose time has not come is no such.
    update pgsaga.task set run_at = clock_timestamp()
      where saga_id = s.id and worker is null and run_at > clock_timestamp() and coalesce(s.run_at <= clock_timestamp(), true);
    if not found then
      raise exception using errcode = 'object_not_in_prerequisite_state',
        message = format('saga %s is %s: nothing of it is stuck or waits for a retry', s.gid, s.status);
    end if;
    if fresh_key then
      raise exception using errcode = 'object_not_in_prerequisite_state',
        message = format('saga %s is %s: only a stuck step gets a fresh key', s.gid, s.status);
    end if;
    perform pgsaga.record_decision(s, 'retry', null, comment);
    return s.status;
  end if;
  for k in select * from pgsaga.stuck where saga_id = s.id order by position loop
    k.position := pgsaga.stuck_position(s, k.step, k.position);
    k.op := coalesce(k.op, 'action');
    if fresh_key then
      -- control: fresh-key-refused
      if exists (select from pgsaga.history h where h.saga_id = s.id and h.step = k.position and h.op = k.op
                 and h.kind = 'attempt' and h.outcome not in ('failure', 'unsent')) then
        raise exception using errcode = 'object_not_in_prerequisite_state',
          message = format('step %s: some %s of it was not definitely refused: a fresh key could do it twice', to_json(k.step), k.op);
      end if;
      key := k.position || '/' || k.op;
      select case when jsonb_typeof(fresh_keys) = 'object' then fresh_keys else '{}' end into keys from pgsaga.saga where id = s.id;
      number := case when jsonb_typeof(keys -> key) = 'number' then (keys -> key)::numeric else 0 end;
      if number < 0 or number >= 2147483647 or number <> trunc(number) then
        raise exception using errcode = 'object_not_in_prerequisite_state',
          message = format('fresh_keys %s: found %s; allowed: a whole number from 0 to 2,147,483,646', to_json(key), left(number::text, 64));
      end if;
      update pgsaga.saga set fresh_keys = keys || jsonb_build_object(key, number::int + 1) where id = s.id;
    end if;
    perform pgsaga.record_decision(s, 'retry', k.position,
      nullif(concat_ws(', ', case when fresh_key then 'with a fresh key' end, comment), ''));
  end loop;
  perform pgsaga.unstick(s, null, null);
  return pgsaga.unstuck_status(s);
end
$$;

-- Counts the op at which a step stands as done. A call of it in flight ends first; its answer is recorded and changes nothing.
create function pgsaga.skip(gid text, step text, comment text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
  at int;
  standing text;
begin
  perform pgsaga.check_comment(comment, 'comment');
  s := pgsaga.lock_saga(gid);
  perform pgsaga.check_not_ending(s);
  select position into at from jsonb_array_elements(pgsaga.steps_of(s.steps)) with ordinality as e (body, position)
    where pgsaga.step_name(s.steps, position::int) = skip.step and position <= 32767;
  if at is null then
    raise exception using errcode = 'no_data_found',
      message = format('saga %s has no step %s', s.gid, to_json(coalesce(skip.step, 'null')));
  end if;
  if pgsaga.unstick(s, skip.step, 'skip') = 0 then
    if exists (select from pgsaga.task t where t.saga_id = s.id and t.step = at and t.interrupt = 'turn'
               and s.steps -> (at - 1) -> 'pivot' is distinct from 'true') then
      raise exception using errcode = 'object_not_in_prerequisite_state',
        message = format('step %s of saga %s is not tried again: the saga turns back', to_json(skip.step), s.gid);
    end if;
    update pgsaga.task t
      set interrupt = 'skip', run_at = case when t.worker is null then pgsaga.at_once(t.run_at) else t.run_at end
      -- An update that leaves epoch and mark as they are would slip past a fence.
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

-- Nothing of a paused queue is claimed, and no saga of it goes on to its next step; calls in flight end. Deadlines wait too.
create function pgsaga.pause(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update pgsaga.queue q set paused_at = clock_timestamp(), paused_by = session_user where q.name = pause.queue and paused_at is null;
  if not found and not exists (select from pgsaga.queue q where q.name = pause.queue) then
    raise exception using errcode = 'no_data_found', message = format('no saga was ever in the queue %s; queues: %s',
      to_json(coalesce(pause.queue, 'null')), (select string_agg(to_json(name)::text, ', ' order by name) from pgsaga.queue));
  end if;
end
$$;

create function pgsaga.resume(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update pgsaga.queue q set paused_at = null, paused_by = null where q.name = resume.queue;
  if not found then
    raise exception using errcode = 'no_data_found', message = format('no saga was ever in the queue %s; queues: %s',
      to_json(coalesce(resume.queue, 'null')), (select string_agg(to_json(name)::text, ', ' order by name) from pgsaga.queue));
  end if;
  perform pg_notify('pgsaga', '');
end
$$;

revoke all on all functions in schema pgsaga from public;
grant execute on function pgsaga.abort(text, text) to pgsaga_producer;
grant execute on function pgsaga.abort(text, text), pgsaga.force(text, text), pgsaga.resolve(text, text, text),
  pgsaga.retry(text, text, boolean), pgsaga.skip(text, text, text), pgsaga.pause(text), pgsaga.resume(text) to pgsaga_operator;
grant delete on pgsaga.stuck to pgsaga_worker;
