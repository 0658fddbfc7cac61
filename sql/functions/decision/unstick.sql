-- version 1: expands

-- Queues stuck steps again with the attempt at which they stopped: the step `stuck_step`, or all
-- stuck steps of the saga if `stuck_step` is null. If a stuck step lacks a value, or holds a value
-- that no worker can read, the value is taken from the definition and the history.
--
-- What was reported of the op is forgotten. A step that waits for a completion waits anew, unless
-- an interrupt decides about it.
create or replace function pgsaga.unstick(s pgsaga.saga, stuck_step text, interrupt text) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  moved int;
begin
  if (s.priority not between 0 and 3 or s.queue !~ '^[A-Za-z0-9._:-]+$' or length(s.queue) > 64)
     and exists (select from pgsaga.stuck k where k.saga_id = s.id and (stuck_step is null or k.step = stuck_step)) then
    raise exception using errcode = 'object_not_in_prerequisite_state', message = case when s.priority between 0 and 3
      then format('queue: found %s; allowed: 1 to 64 of the characters A-Z a-z 0-9 . _ : -', to_json(left(s.queue, 64)))
      else format('priority: found %s; allowed: a whole number from 0 to 3', s.priority) end;
  end if;
  with unstuck as (
    delete from pgsaga.stuck k where k.saga_id = s.id and (stuck_step is null or k.step = stuck_step) returning k.*
  ), tried as materialized (
    select k.unknown_before, k.last_outcome, k.epoch, p.position, p.operation, s.steps -> (p.position - 1) ->> p.operation as url,
      case when k.attempt between 1 and 1000000000 then k.attempt else 1 + (
        select count(*) from pgsaga.history h
        where h.saga_id = s.id and h.step = p.position and h.op = p.operation and h.kind = 'attempt') end as next,
      case when unstick.interrupt is null then pgsaga.wait_of(s.steps, p.position, p.operation) end as how_long,
      -- A deadline that has passed is left out, because it would end the retry before its call.
      case when p.operation = 'action' and s.deadline > clock_timestamp() and not pgsaga.is_past_pivot(s, p.position) then s.deadline end as ends_at
    from unstuck k
    cross join lateral (
      select pgsaga.stuck_position(s, k.step, k.position) as position, coalesce(k.op, 'action') as operation offset 0
    ) p
  ), queued as (
    insert into pgsaga.task (saga_id, step, op, attempt, unknown_before, last_outcome, format, bytes, lane, participant,
                             interrupt, deadline, epoch, wait, wait_ends_at, run_at)
    select s.id, k.position, k.operation, k.next + (k.how_long is not null)::int,
      coalesce(k.unknown_before, exists (
        select from pgsaga.history h where h.saga_id = s.id and h.step = k.position and h.op = k.operation
          and h.outcome in (select o.outcome from pgsaga.outcome o where o.effect = 'maybe'))),
      case when k.how_long is not null then 'ongoing'
        when k.last_outcome in (select o.outcome from pgsaga.outcome o) then k.last_outcome end, s.format, s.bytes,
      pgsaga.open_lane(s.queue, s.priority, ''),
      coalesce(split_part(split_part(k.url, '/', case when split_part(k.url, '/', 1) like '%:' then 3 else 1 end), '?', 1), ''),
      -- An abort that waits for the pivot continues to wait.
      coalesce(unstick.interrupt, case when k.operation = 'action' and s.abort_reason is not null and not pgsaga.is_past_pivot(s, k.position) then 'unwind' end),
      k.ends_at, case when k.epoch between 0 and 2000000000 then k.epoch else 0 end, k.how_long, clock_timestamp() + k.how_long,
      least(clock_timestamp() + coalesce(k.how_long, interval '0'), k.ends_at)
    from tried k
    returning id
  ), begun as (
    insert into pgsaga.history (saga_id, step, op, attempt, outcome, message)
      select s.id, k.position, k.operation, k.next, 'ongoing', 'waits for a completion' from tried k where k.how_long is not null
  ), forgotten as (
    update pgsaga.saga set completions = nullif(completions - array(select k.position || '/' || k.operation from tried k), '{}')
    where id = s.id and completions is not null
  )
  select count(*) into moved from queued;
  if s.progress is not null then
    update pgsaga.saga set version = case when version < 2147483647 then version + 1 else 0 end, progress = translate(progress, 'sx', 'ac')
      where id = s.id and stuck_step is null;
    update pgsaga.saga
      set version = case when version < 2147483647 then version + 1 else 0 end,
          progress = overlay(progress placing translate(substr(progress, t.step, 1), 'sx', 'ac') from t.step for 1)
      from pgsaga.task t
      where saga.id = s.id and t.saga_id = s.id and stuck_step is not null and t.step > 0 and pgsaga.step_name(s.steps, t.step) = stuck_step;
  end if;
  return moved;
end
$$;
revoke all on function pgsaga.unstick from public;
