-- Order, deadlines, results, aborts, repairs, queues. Every new column has a constant default, so no table is rewritten.

alter table pgsaga.saga
  add column queue                  text collate "C" not null default 'default',
  add column priority               smallint not null default 1,
  add column run_at                 timestamptz,
  add column timeout_to_fail        interval,
  add column compensate_retry_limit int,
  add column result_mapping         jsonb,
  add column deadline               timestamptz,
  add column bytes                  int not null default 0,
  add column answers                boolean not null default false,
  add column version                int not null default 0,
  add column progress               text collate "C",
  add column abort_reason           text,
  add column ending                 text check (ending in ('succeeded', 'failed')),
  add column fresh_keys             jsonb;
comment on column pgsaga.saga.result is 'The last step''s JSON answer, or what result_mapping makes of all answers.';
comment on column pgsaga.saga.deadline is 'timeout_to_fail after the later of insertion and run_at. Never changes.';
comment on column pgsaga.saga.bytes is 'Size of steps as text.';
comment on column pgsaga.saga.answers is 'Some payload, or the result, refers to a step''s answer.';
comment on column pgsaga.saga.version is 'Raised by every change of progress or direction: a settle of a parallel saga names the one that it planned from.';
comment on column pgsaga.saga.progress is 'One character a step, of parallel sagas only: . waiting, a its action has a task, d done, v ended without effect, '
  'm may have taken effect, c its compensation has a task, u undone, s action stuck, x compensation stuck.';
comment on column pgsaga.saga.abort_reason is 'Why the saga turned back, or turns back unless its pivot, which was called, succeeds.';
comment on column pgsaga.saga.ending is 'What an operator decided (force, resolve) while calls were in flight: applied when the last one has ended.';
comment on column pgsaga.saga.fresh_keys is 'How often retry gave an op a fresh idempotency key, as {"<step>/<op>": 1}.';

-- Queues exist from their first use. A lane is a queue's class of priority: claims walk each lane by run_at, from its own mark.
create table pgsaga.queue (
  name      text collate "C" primary key,
  paused_at timestamptz,
  paused_by text
);
create table pgsaga.lane (
  id       int generated always as identity primary key,
  queue    text collate "C" not null references pgsaga.queue,
  priority smallint not null check (priority between 0 and 3),
  unique (queue, priority)
);
insert into pgsaga.queue (name) values ('default');
insert into pgsaga.lane (queue, priority) values ('default', 1);

alter table pgsaga.task
  add column lane        int not null default 1,
  add column participant text collate "C" not null default '',
  add column deadline    timestamptz,
  add column interrupt   text check (interrupt in ('turn', 'skip', 'end'));
comment on column pgsaga.task.participant is 'Whom it calls: host and port as the URL writes them. Claims leave out those that do not answer.';
comment on column pgsaga.task.deadline is 'The saga''s, while it can still turn back: no wait is longer.';
comment on column pgsaga.task.interrupt is 'The worker that meets it plans anew instead of calling: the saga turns back, the op counts as done, or the saga is ended.';
-- Neither lane nor saga_id ever changes: claims and advances stay HOT.
-- control: claim-index
create index task_lane_run_at on pgsaga.task (lane, run_at);
create index task_saga on pgsaga.task (saga_id);
drop index pgsaga.task_run_at;

-- A stuck step remembers its next try, so that a person's retry goes on where it stopped.
alter table pgsaga.stuck
  drop constraint stuck_pkey,
  add primary key (saga_id, step),
  add column position       smallint,
  add column op             text check (op in ('action', 'compensate')),
  add column attempt        int,
  add column unknown_before boolean,
  add column last_outcome   text,
  add column epoch          int not null default 0,
  add column unreadable     boolean not null default false;
comment on column pgsaga.stuck.unreadable is 'The row itself cannot be read: a person must mend or end the saga.';
update pgsaga.stuck k
set position = h.step, op = h.op, attempt = h.attempt + 1, last_outcome = h.outcome,
    unknown_before = (select bool_or(u.outcome = 'unknown') from pgsaga.history u
                      where u.saga_id = k.saga_id and u.step = h.step and u.op = h.op)
from pgsaga.stuck k2 cross join lateral (
  select step, op, attempt, outcome from pgsaga.history
  where saga_id = k2.saga_id and kind = 'attempt' order by seq desc limit 1
) h
where k.saga_id = k2.saga_id;

-- Why sagas of the first version turned back; what a stuck compensation left of it is the reason of its own.
update pgsaga.saga set abort_reason = reason where status in ('aborting', 'failed');
update pgsaga.saga s set abort_reason = s.reason
from pgsaga.stuck k where k.saga_id = s.id and k.op = 'compensate';

alter table pgsaga.history
  add column decision   text check (decision in ('abort', 'force', 'retry', 'skip', 'resolve')),
  add column decided_by text,
  add column answer     jsonb;
comment on column pgsaga.history.answer is 'The JSON that a successful action answered, where the saga refers to it.';
alter table pgsaga.history
  drop constraint history_kind_check,
  add constraint history_kind_check check (kind in ('attempt', 'decision', 'deadline')),
  add constraint decision_is_a_decision check (decision is null or kind = 'decision');

-- The lane of a queue's class, made on first use. Each INSERT names its conflict target: an id that
-- lane_id_seq gives twice is then an error, and not taken for a lane that exists.
create function pgsaga.open_lane(queue text, priority smallint) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  found int;
begin
  select l.id into found from pgsaga.lane l where l.queue = open_lane.queue and l.priority = open_lane.priority;
  if found is null then
    insert into pgsaga.queue (name) values (open_lane.queue) on conflict (name) do nothing;
    insert into pgsaga.lane (queue, priority) values (open_lane.queue, open_lane.priority)
      -- control: lane-conflict
      on conflict (queue, priority) do nothing;
    select l.id into found from pgsaga.lane l where l.queue = open_lane.queue and l.priority = open_lane.priority;
  end if;
  return found;
end
$$;

-- Queues the steps that wait for nothing of each saga that was really inserted: after `on conflict
-- (gid) do nothing` the transition table lacks the skipped rows. Wakes workers only when one is
-- idle (see migration 1).
create or replace function pgsaga.queue_sagas() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into pgsaga.task (saga_id, step, op, format, bytes, lane, participant, deadline, run_at)
    select i.id, first.position, 'action', i.format, i.bytes, coalesce(l.id, pgsaga.open_lane(i.queue, i.priority)),
           split_part(split_part(first.step ->> 'action', '/', 3), '?', 1), i.deadline,
           greatest(clock_timestamp(), i.run_at)
    from inserted i
    left join pgsaga.lane l on l.queue = i.queue and l.priority = i.priority
    cross join lateral (
      select 1 as position, i.steps -> 0 as step where i.progress is null
      union all
      -- Once a saga: a large definition is decompressed at every access.
      select ordinality::int, value
      from jsonb_array_elements(case when i.progress is null then '[]' else i.steps end) with ordinality
      where substr(i.progress, ordinality::int, 1) = 'a'
    ) first;
  if not found or current_setting('pgsaga.notify', true) = 'off' then
    return null;
  end if;
  if pg_try_advisory_lock_shared(8101820131131281) then
    perform pg_advisory_unlock_shared(8101820131131281);
  else
    notify pgsaga;
  end if;
  return null;
end
$$;

-- For doctor and people: which step waits for which, of every saga. Names are looked up in an
-- object made once a saga. What a row that was changed by hand has instead of an array counts as
-- none.
create view pgsaga.step_order as
  select s.id as saga_id, step.position::int as step,
         coalesce((positions.by_name ->> after.name)::int, step.position - 1)::int as waits_for
  from pgsaga.saga s
  cross join lateral (
    select jsonb_object_agg(coalesce(e.body ->> 'name', lpad(e.position::text, greatest(2, length(e.position::text)), '0')),
                            e.position) as by_name
    from jsonb_array_elements(case when s.progress is not null and jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end)
      with ordinality as e (body, position)
    offset 0
  ) positions
  cross join lateral jsonb_array_elements(case when jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end)
    with ordinality as step (body, position)
  left join lateral jsonb_array_elements_text(
    case when s.progress is not null and jsonb_typeof(step.body -> 'after') = 'array' then step.body -> 'after' end) as after (name) on true
  where case when s.progress is not null and step.body ? 'after' then after.name is not null else step.position > 1 end;

create or replace view pgsaga.saga_timeline as
  select s.gid, h.seq, h.at, h.kind,
         coalesce(s.steps -> (h.step - 1) ->> 'name', lpad(h.step::text, greatest(2, length(h.step::text)), '0')) as step,
         h.op, h.attempt, h.outcome, h.status_code, h.duration_us * interval '1 microsecond' as duration, h.message, h.worker,
         h.decision, h.decided_by, h.answer
  from pgsaga.history h join pgsaga.saga s on s.id = h.saga_id;

-- For people and exporters: each queue and class.
create view pgsaga.queues as
  select l.queue, l.priority, q.paused_at, q.paused_by,
         count(t.id) filter (where t.worker is null and t.run_at <= now.at) as due,
         count(t.id) filter (where t.worker is null and t.run_at > now.at) as waiting,
         count(t.id) filter (where t.worker is not null) as running,
         coalesce(now.at - min(greatest(t.run_at, 'epoch')) filter (where t.worker is null and t.run_at <= now.at), interval '0') as oldest_due_age
  from (select clock_timestamp() as at) now
  cross join pgsaga.lane l join pgsaga.queue q on q.name = l.queue
  left join pgsaga.task t on t.lane = l.id
  group by l.queue, l.priority, q.paused_at, q.paused_by, now.at;

revoke all on function pgsaga.open_lane(text, smallint) from public;
grant insert (queue, priority, run_at, timeout_to_fail, compensate_retry_limit, result_mapping) on pgsaga.saga to pgsaga_producer;
grant update (version, progress, abort_reason, ending) on pgsaga.saga to pgsaga_worker;
grant select on pgsaga.queue, pgsaga.lane to pgsaga_worker;
grant select on pgsaga.queue, pgsaga.lane, pgsaga.step_order, pgsaga.saga_timeline, pgsaga.queues to pgsaga_reader, pgsaga_operator;
grant select on sequence pgsaga.lane_id_seq to pgsaga_reader, pgsaga_operator;
