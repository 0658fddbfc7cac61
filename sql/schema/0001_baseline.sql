-- The tables, views and rights of pgsaga. Functions and triggers lie in sql/functions.

-- Domains, because Postgres reads their CHECK once a session, and a table's for every statement.
-- Not for `status`: check_saga has better words for a wrong one, and a domain would come first.
create domain pgsaga.saga_end as text check (value in ('succeeded', 'failed'));
create domain pgsaga.op as text check (value in ('action', 'compensate'));
create domain pgsaga.attempt_outcome as text check (value in ('success', 'failure', 'ongoing', 'unknown', 'unsent'));
create domain pgsaga.task_interrupt as text check (value in ('unwind', 'skip', 'end'));
create domain pgsaga.completion as text check (value in ('success', 'failure'));
create domain pgsaga.event_kind as text check (value in ('attempt', 'completion', 'decision', 'deadline'));
create domain pgsaga.decision as text check (value in ('abort', 'force', 'retry', 'skip', 'resolve'));

-- One row for each saga. An application inserts the row, and workers update it at its few changes
-- of status. No index has a column that changes, so that these updates stay HOT.
create table pgsaga.saga (
  id                     bigint generated always as identity primary key,
  -- The default is a time-ordered UUID (version 7, RFC 9562), because random keys cost index
  -- locality.
  gid                    text collate "C" not null unique default encode(
                           set_bit(set_bit(overlay(
                             uuid_send(gen_random_uuid())
                             placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                             from 1 for 6), 52, 1), 53, 1), 'hex')::uuid::text,
  reason                 text,
  format                 smallint not null default 1,
  steps                  jsonb not null,
  retry_interval         interval not null default '10 seconds',
  retry_limit            int,
  request_timeout        interval not null default '3 seconds',
  headers                jsonb,
  labels                 jsonb,
  result                 jsonb,
  created_at             timestamptz not null default clock_timestamp(),
  finished_at            timestamptz,
  queue                  text collate "C" not null default 'default',
  priority               smallint not null default 1,
  run_at                 timestamptz,
  timeout_to_fail        interval,
  compensate_retry_limit int,
  result_mapping         jsonb,
  deadline               timestamptz,
  bytes                  int not null default 0,
  answers                boolean not null default false,
  compensate_failed      boolean not null default false,
  version                int not null default 0,
  progress               text collate "C",
  abort_reason           text,
  ending                 pgsaga.saga_end,
  fresh_keys             jsonb,
  completions            jsonb,
  -- Last, behind the steps. Postgres logs an update that stays on its page from the first byte that
  -- changes to the last one. With `status` in front of the steps and `finished_at` behind them,
  -- each success logged the whole row.
  status                 text not null default 'submitted' check (status in ('submitted', 'succeeded', 'aborting', 'failed', 'stuck')),
  constraint reason_when_not_well check ((reason is not null) = (status in ('aborting', 'failed', 'stuck'))),
  constraint finished_at_when_finished check ((finished_at is not null) = (status in ('succeeded', 'failed')))
) with (
  -- Half a page stays free for the last version of each row. With fillfactor 70 the table became as
  -- large in the end, and its indexes twice as large.
  fillfactor = 50,
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1
);
comment on table pgsaga.saga is 'One row for each saga. Applications insert gid and steps; workers do the rest.';
comment on column pgsaga.saga.status is 'submitted -> succeeded, or -> aborting -> failed; or stuck, which needs a person.';
comment on column pgsaga.saga.result is 'The last step''s JSON answer, or what result_mapping makes of all answers.';
comment on column pgsaga.saga.deadline is 'timeout_to_fail after the later of insertion and run_at. Never changes.';
comment on column pgsaga.saga.bytes is 'Size of steps as text.';
comment on column pgsaga.saga.compensate_failed is 'A step whose action was refused is compensated as well.';
comment on column pgsaga.saga.answers is 'Some payload, or the result, refers to a step''s answer.';
comment on column pgsaga.saga.version is 'Raised by every change of progress or direction. A settle of a parallel saga names the version of its plan.';
comment on column pgsaga.saga.progress is 'One character for each step, in sagas that are parallel or have a step that waits: . waiting, r reported before its turn, '
  'a its action has a task, d done, v ended without effect, m may have taken effect, c its compensation has a task, u undone, s action stuck, x compensation stuck.';
comment on column pgsaga.saga.abort_reason is 'Why the saga rolled back, or rolls back unless its pivot, which was called, succeeds.';
comment on column pgsaga.saga.ending is 'The end that a person decided (force, resolve) while calls were in flight: it applies when the last call has ended.';
comment on column pgsaga.saga.fresh_keys is 'The number of fresh idempotency keys that retry gave to each op, as {"<step>/<op>": 1}.';
comment on column pgsaga.saga.completions is 'What pgsaga.complete reported of each op, as {"<step>/<op>": "success"}.';

-- A lane holds tasks of one priority class of one queue. Its first saga creates it. A claim walks
-- each lane by run_at, from the watermark of the lane.
--
-- A lane may be for one named participant. A worker claims from the lanes without one, and from
-- those of the participants that it serves (queries/claim/open_lanes.sql). A task that any worker
-- may plan, because it has an interrupt, is in a lane without one.
--
-- The index is not unique, so that no INSERT waits for another (docs/races.md, R30): transactions
-- that use a new class at the same time create a lane each. All of these stay, and are equal.
create table pgsaga.lane (
  id          int generated always as identity primary key,
  queue       text collate "C" not null,
  priority    smallint not null check (priority between 0 and 3),
  participant text collate "C" not null default ''
);
create index lane_participant_class on pgsaga.lane (participant, queue, priority, id);
comment on column pgsaga.lane.participant is 'The named participant whose tasks the lane holds, such as participant:stock; empty = any.';
insert into pgsaga.lane (queue, priority) values ('default', 1);
-- Postgres logs the next 32 numbers of a sequence ahead. A copy of this database (`create database
-- … template … strategy wal_log`) does not know that: after a crash it would give the number of a
-- lane again. Set, the sequence has logged nothing ahead.
-- control: lane-sequence
select setval('pgsaga.lane_id_seq', 1);
create table pgsaga.paused_queue (
  name      text collate "C" primary key,
  paused_at timestamptz not null default clock_timestamp(),
  paused_by text
);

-- The hot table: it holds only attempts that are due, waiting or running. It has no foreign key and
-- no payload. No indexed column changes while a saga is healthy, and a page has room for three
-- versions of each row, so that claims and advances are HOT updates.
create table pgsaga.task (
  id             bigint generated always as identity primary key,
  saga_id        bigint not null,
  run_at         timestamptz not null,
  worker         bigint,
  epoch          int not null default 0,
  step           smallint not null,
  format         smallint not null default 1,
  attempt        int not null default 1,
  counted        int not null default 0,
  bytes          int not null default 0,
  lost           smallint not null default 0,
  lost_isolated  smallint not null default 0,
  isolated       boolean not null default false,
  unknown_before boolean not null default false,
  op             pgsaga.op not null default 'action',
  last_outcome   pgsaga.attempt_outcome,
  lane           int not null default 1,
  participant    text collate "C" not null default '',
  deadline       timestamptz,
  interrupt      pgsaga.task_interrupt,
  completion     pgsaga.completion,
  wait           interval,
  wait_ends_at   timestamptz
) with (
  fillfactor = 33, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 100,
  autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1, autovacuum_analyze_scale_factor = 0.5
);
-- Claims. A lane changes only where a task is left to workers that serve it.
-- control: claim-index
create index task_lane_run_at on pgsaga.task (lane, run_at);
create index task_saga on pgsaga.task (saga_id);
comment on table pgsaga.task is 'One queued attempt of one op of one step. A claim is (worker, epoch), and every write raises the epoch.';
comment on column pgsaga.task.step is 'Position in saga.steps, from 1.';
comment on column pgsaga.task.attempt is 'The number of this attempt of the op, from 1, including attempts of lost workers.';
comment on column pgsaga.task.counted is 'Earlier attempts that count against retry_limit: see pgsaga.outcome.';
comment on column pgsaga.task.bytes is 'Size of saga.steps as text. Workers bound the sum of the tasks that they hold.';
comment on column pgsaga.task.lost is 'Workers that died while they held this task. From 3 on the task runs isolated.';
comment on column pgsaga.task.lost_isolated is 'Workers that died while this task ran isolated. At 10 the saga becomes stuck.';
comment on column pgsaga.task.unknown_before is 'An earlier attempt of this op ended unknown, so the op may have taken effect.';
comment on column pgsaga.task.participant is 'The participant that the task calls: host and port as the URL writes them. Claims leave out participants that do not respond.';
comment on column pgsaga.task.deadline is 'The saga''s deadline while the saga can still roll back. No wait exceeds it.';
comment on column pgsaga.task.interrupt is 'The worker that claims the task plans again instead of calling: the saga rolls back, the op counts as done, or the saga ends.';
comment on column pgsaga.task.completion is 'What pgsaga.complete reported of the op. It stands beside the interrupt, and is as much part of the fence.';
comment on column pgsaga.task.wait is 'How long the op waits for a completion; null = it does not wait.';
comment on column pgsaga.task.wait_ends_at is 'No call before this time. A task that is claimed earlier goes back.';

-- The events of sagas, append-only. `seq` orders the events of a saga, because each is taken under
-- the lock of the saga or of its only task. Functions create and drop the partitions
-- (sql/functions/retention).
create sequence pgsaga.history_seq;
create table pgsaga.history (
  saga_id     bigint not null,
  seq         bigint not null default nextval('pgsaga.history_seq'),
  at          timestamptz not null default clock_timestamp(),
  worker      bigint,
  attempt     int,
  duration_us int,
  step        smallint,
  status_code smallint,
  kind        pgsaga.event_kind not null default 'attempt',
  op          pgsaga.op,
  outcome     pgsaga.attempt_outcome,
  message     text,
  decision    pgsaga.decision,
  decided_by  text,
  answer      jsonb,
  primary key (saga_id, seq),
  constraint attempt_is_whole check (kind <> 'attempt' or (step is not null and op is not null and attempt is not null and outcome is not null)),
  constraint decision_is_a_decision check (decision is null or kind = 'decision')
) partition by range (saga_id);
comment on table pgsaga.history is 'Append-only: one row for each finished attempt, completion and decision of a person, and a deadline that rolled the saga back.';
comment on column pgsaga.history.at is 'The end of the attempt, by the database''s clock.';
comment on column pgsaga.history.duration_us is 'Microseconds, measured by the worker; null when the worker was lost.';
comment on column pgsaga.history.answer is 'The JSON that a successful action or its completion returned; an action''s only if the saga refers to it.';

-- What each outcome of an attempt means. `Outcome` of pgsaga-plan says the same; a test compares
-- both.
--   overrides  the attempt says how the op stands, in place of what earlier attempts said
--   counted    the attempt counts against retry_limit
--   effect     of the op, as the attempt knows it: done; none, and none will come; pending; maybe
create view pgsaga.outcome (outcome, overrides, counted, effect) as values
  ('success', true, true, 'done'), ('failure', true, true, 'none'), ('ongoing', true, false, 'pending'),
  ('unknown', true, true, 'maybe'),
  ('unsent', false, true, 'none');

-- Steps that cannot continue without a person. A stuck step keeps its next attempt, with which a
-- person's retry continues.
create table pgsaga.stuck (
  saga_id        bigint,
  step           text not null,
  reason         text not null,
  at             timestamptz not null default clock_timestamp(),
  position       smallint,
  op             pgsaga.op,
  attempt        int,
  unknown_before boolean,
  last_outcome   text,
  epoch          int not null default 0,
  unreadable     boolean not null default false,
  primary key (saga_id, step)
);
comment on column pgsaga.stuck.unreadable is 'Workers cannot read the row. A person must repair or end the saga.';

-- Workers and their heartbeats. The table is logged and ids are never used again. An UNLOGGED table
-- would be empty after a crash and its identity would restart: a new worker would own a dead
-- worker's tasks.
-- control: worker-table-logged
create table pgsaga.worker (
  id         bigint generated always as identity primary key,
  beat       bigint not null default 0,
  seen_at    timestamptz not null default clock_timestamp(),
  dead       boolean not null default false,
  retired    boolean not null default false,
  lease_ms   int not null,
  host       text not null,
  pid        int not null,
  version    text not null,
  started_at timestamptz not null default clock_timestamp(),
  denied     jsonb,
  queues     text[] collate "C",
  participants text[] collate "C" not null default '{}',
  transactional text[] collate "C" not null default '{}',
  progress   jsonb
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
comment on column pgsaga.worker.beat is 'A counter. A worker that sees it unchanged for a lease, by its own clock, may declare this worker dead.';
comment on column pgsaga.worker.denied is 'Participants that this worker may not call or does not know, and why. Their tasks wait for another worker.';
comment on column pgsaga.worker.queues is 'The queues that this worker serves; null = every queue.';
comment on column pgsaga.worker.participants is 'The named participants that this worker serves, in its process or over HTTP.';
comment on column pgsaga.worker.transactional is 'Those of them whose handlers run in a transaction of this database. An attempt that is lost with the worker was rolled back.';
comment on column pgsaga.worker.progress is 'What the handlers that run in the process have reported, by task, for people.';
comment on column pgsaga.worker.seen_at is 'For people only. No decision compares clocks.';

-- What `pgsaga migrate` has applied.
create table pgsaga.migration (
  version    bigint primary key,
  name       text not null,
  digest     text,
  applied_at timestamptz not null default clock_timestamp()
);
comment on table pgsaga.migration is 'The applied versions of the schema.';
comment on column pgsaga.migration.name is 'Workers of the release before continue beside expand_…, and stop beside contract_….';
comment on column pgsaga.migration.digest is 'SHA-256 of the version''s text; null where only functions changed.';
create table pgsaga.function (
  name       text primary key,
  version    bigint not null,
  digest     text not null,
  applied_at timestamptz not null default clock_timestamp()
);
comment on table pgsaga.function is 'The functions that migrate has applied. It applies a function again when its text differs.';
comment on column pgsaga.function.version is 'The version of the schema that last changed the function.';
comment on column pgsaga.function.digest is 'SHA-256 of the function''s file.';

-- Whose database this is (sql/functions/home). A copy of the database carries the row along, so
-- that workers notice the copy.
create table pgsaga.home (
  is_the_row        boolean primary key default true check (is_the_row),
  environment       text collate "C" check (environment ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
  system_identifier bigint,
  adopted_at        timestamptz not null default clock_timestamp()
);
comment on table pgsaga.home is 'One row: for whom the sagas of this database are run.';
comment on column pgsaga.home.environment is 'Workers of this name work here: pgsaga migrate --environment.';
comment on column pgsaga.home.system_identifier is 'Of the cluster that workers work in: pgsaga migrate --adopt. Null where the server does not reveal it.';

-- For people: a saga's events in order.
create view pgsaga.saga_timeline as
  select s.gid, h.seq, h.at, h.kind,
         coalesce(s.steps -> (h.step - 1) ->> 'name', lpad(h.step::text, greatest(2, length(h.step::text)), '0')) as step,
         h.op, h.attempt, h.outcome, h.status_code, h.duration_us * interval '1 microsecond' as duration, h.message, h.worker, h.decision, h.decided_by, h.answer
  from pgsaga.history h join pgsaga.saga s on s.id = h.saga_id;

-- For doctor and people: the steps that each step waits for. Names are looked up in an object that
-- is made once for each saga. If `steps`, changed by hand, holds no array, there are no steps.
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

-- The views from here on are for people, exporters and metrics. An edit by hand may leave infinite
-- times, which cannot be subtracted, so the views bound all times to between 1970 and now.

-- All queues in one row. Reads only the hot table.
create view pgsaga.queue_stats as
  select count(*) filter (where worker is null and run_at <= t.now) as due,
         count(*) filter (where worker is null and run_at > t.now) as waiting,
         count(*) filter (where worker is not null) as running,
         coalesce(t.now - min(greatest(run_at, 'epoch')) filter (where worker is null and run_at <= t.now), interval '0') as oldest_due_age,
         (select count(*) from pgsaga.stuck) as stuck,
         (select count(*) from pgsaga.worker where not dead) as workers
  from (select clock_timestamp() as now) t left join pgsaga.task on true
  group by t.now;

-- Each queue and priority class, with the number of living workers that serve it, and the due tasks
-- that none of them serves. Nobody serves a paused queue on purpose.
create view pgsaga.queues as
  select l.queue, l.priority, q.paused_at, q.paused_by,
         count(t.id) filter (where t.worker is null and t.run_at <= now.at) as due,
         count(t.id) filter (where t.worker is null and t.run_at > now.at) as waiting, count(t.id) filter (where t.completion is null and t.wait_ends_at > now.at) as awaiting,
         count(t.id) filter (where t.worker is not null) as running,
         coalesce(now.at - min(greatest(t.run_at, 'epoch')) filter (where t.worker is null and t.run_at <= now.at), interval '0') as oldest_due_age,
         (select count(*) from pgsaga.worker w where not w.dead and w.seen_at > now.at - w.lease_ms * interval '1 millisecond'
            and (w.queues is null or l.queue = any (w.queues))) as workers,
         count(t.id) filter (where t.worker is null and t.run_at <= now.at and q.name is null and s.workers = 0) as unserved
  from (select clock_timestamp() as at) now
  cross join pgsaga.lane l left join pgsaga.paused_queue q on q.name = l.queue
  cross join lateral (select count(*) as workers from pgsaga.worker w where not w.dead and w.seen_at > now.at - w.lease_ms * interval '1 millisecond'
    and (w.queues is null or l.queue = any (w.queues)) and (l.participant = '' or l.participant = any (w.participants))) s
  left join pgsaga.task t on t.lane = l.id
  group by l.queue, l.priority, q.paused_at, q.paused_by, now.at;

-- An open saga has a task and is not stuck. The oldest one was inserted first, even if its run_at
-- is later. A task whose saga does not exist is left out.
create view pgsaga.saga_stats as
  select
    (select count(*) from (
       select distinct t.saga_id from pgsaga.task t where not exists (select from pgsaga.stuck k where k.saga_id = t.saga_id)) o) as open,
    (select count(distinct k.saga_id) from pgsaga.stuck k) as stuck,
    coalesce(now.at - (
               select greatest(least(s.created_at, now.at), 'epoch') from (select t.saga_id from pgsaga.task t order by t.saga_id) o
               cross join lateral (select i.created_at from pgsaga.saga i where i.id = o.saga_id offset 0) s
               order by o.saga_id limit 1), interval '0') as oldest_open_age,
    coalesce(now.at - (select greatest(least(min(k.at), now.at), 'epoch') from pgsaga.stuck k having count(*) > 0), interval '0') as longest_stuck_age,
    -- The end of the first attempt of an op that is tried again, of the 1,000 oldest such sagas.
    coalesce(now.at - (
               select min(greatest(least(f.at, now.at), 'epoch'))
               from (select t.saga_id, t.step, t.op from pgsaga.task t where t.attempt > 1 and coalesce(t.wait_ends_at <= now.at, true) order by t.saga_id limit 1000) r
               cross join lateral (
                 select h.at from pgsaga.history h
                 where h.saga_id = r.saga_id and h.kind = 'attempt' and h.step = r.step and h.op = r.op order by h.seq limit 1) f), interval '0') as longest_retry_age
  from (select clock_timestamp() as at) now;
comment on view pgsaga.saga_stats is 'Counts and ages of the unfinished sagas, in one row.';

-- Silence by the database's clock. Workers do not use it: they watch each other's counters.
create view pgsaga.worker_stats as
  select w.id, w.host, w.pid, w.version, w.started_at, now.at - greatest(least(w.seen_at, '9999-12-31'), 'epoch') as silent_for, w.lease_ms * interval '1 millisecond' as lease,
    not w.dead and w.seen_at > now.at - w.lease_ms * interval '1 millisecond' as alive
  from pgsaga.worker w cross join (select clock_timestamp() as at) now;
comment on view pgsaga.worker_stats is 'Workers that have a row, with the time since their last heartbeat.';

-- All partitions of the history count as one table.
create view pgsaga.table_stats as
  select t.name as table_name, coalesce(sum(c.n_dead_tup), 0)::bigint as dead_rows,
    coalesce(sum(pg_total_relation_size(c.relid)), 0)::bigint as bytes
  from (values ('task'), ('saga'), ('history')) t (name)
  left join pg_stat_user_tables c on c.schemaname = 'pgsaga' and (c.relname = t.name or t.name = 'history' and c.relname like 'history\_%')
  group by t.name;
comment on view pgsaga.table_stats is 'Dead rows according to the statistics, and size including indexes and TOAST.';

-- What keeps vacuum from removing dead rows. Only members of pg_read_all_stats see other roles'
-- sessions.
create view pgsaga.open_transactions as
  select 'session' as kind, a.pid, null as gid, a.usename::text as "user", a.application_name as application, a.state,
    a.xact_start as since, clock_timestamp() - a.xact_start as age
  from pg_stat_activity a
  where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start is not null and (a.backend_xid is not null or a.backend_xmin is not null)
  union all
  select 'prepared', null, p.gid, p.owner::text, null, null, p.prepared, clock_timestamp() - p.prepared
  from pg_prepared_xacts p where p.database = current_database();
comment on view pgsaga.open_transactions is 'Transactions that keep vacuum from removing rows that died after their start.';

-- Rights, as few as possible. Rights on a function stand in the function's file.
revoke all on schema pgsaga from public;
grant usage on schema pgsaga to pgsaga_producer, pgsaga_completer, pgsaga_worker, pgsaga_reader, pgsaga_operator;
grant insert (gid, steps, retry_interval, retry_limit, request_timeout, headers, labels, queue, priority, run_at, timeout_to_fail, compensate_retry_limit, compensate_failed, result_mapping) on pgsaga.saga to pgsaga_producer;
-- ORMs read back what the database has chosen. What other applications wrote (steps, headers,
-- labels) is not for every producer.
grant select (id, gid, status, reason, result, created_at, finished_at, queue, priority, run_at) on pgsaga.saga to pgsaga_producer;
grant select on pgsaga.saga, pgsaga.history, pgsaga.stuck, pgsaga.paused_queue, pgsaga.lane, pgsaga.migration, pgsaga.outcome, pgsaga.queues, pgsaga.saga_stats, pgsaga.worker_stats, pgsaga.table_stats, pgsaga.open_transactions to pgsaga_worker;
grant update (status, reason, result, finished_at, version, progress, abort_reason, ending) on pgsaga.saga to pgsaga_worker;
grant select, insert, update, delete on pgsaga.task, pgsaga.worker to pgsaga_worker;
grant insert on pgsaga.history, pgsaga.stuck to pgsaga_worker;
grant insert (queue, priority, participant) on pgsaga.lane to pgsaga_worker;
grant delete on pgsaga.stuck to pgsaga_worker;
grant usage on sequence pgsaga.history_seq to pgsaga_worker;

-- `pgsaga doctor` compares each sequence with its tables.
grant select on all tables in schema pgsaga to pgsaga_reader, pgsaga_operator;
grant select on all sequences in schema pgsaga to pgsaga_reader, pgsaga_operator;
