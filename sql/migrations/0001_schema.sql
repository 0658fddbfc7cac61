-- The schema of pgsaga. Run by `pgsaga migrate` as pgsaga_owner, in the schema `pgsaga`.

-- One row a saga: inserted once by the application, updated at its few status changes.
-- No index names a column that changes, so those updates stay HOT.
create table pgsaga.saga (
  id              bigint generated always as identity primary key,
  -- A time-ordered UUID (version 7, RFC 9562) unless the application names its own: a random key costs index locality.
  gid             text collate "C" not null unique default encode(
                    set_bit(set_bit(overlay(
                      uuid_send(gen_random_uuid())
                      placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                      from 1 for 6), 52, 1), 53, 1), 'hex')::uuid::text,
  status          text not null default 'submitted'
                    check (status in ('submitted', 'succeeded', 'aborting', 'failed', 'stuck')),
  reason          text,
  format          smallint not null default 1,
  steps           jsonb not null,
  retry_interval  interval not null default '10 seconds',
  retry_limit     int,
  request_timeout interval not null default '3 seconds',
  headers         jsonb,
  labels          jsonb,
  result          jsonb,
  created_at      timestamptz not null default clock_timestamp(),
  finished_at     timestamptz,
  constraint reason_when_not_well check ((reason is not null) = (status in ('aborting', 'failed', 'stuck'))),
  constraint finished_at_when_finished check ((finished_at is not null) = (status in ('succeeded', 'failed')))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1);
comment on table pgsaga.saga is 'One row a saga. Applications insert gid and steps; workers do the rest.';
comment on column pgsaga.saga.status is 'submitted -> succeeded, or -> aborting -> failed; or stuck, which needs a person.';
comment on column pgsaga.saga.result is 'Reserved for the results of steps; null in this version.';

-- The hot table: only what is due, waiting or running. No foreign key, no payload; nothing that changes while a
-- saga is healthy is indexed, and a page has room for three versions of each row, so claims and advances are HOT.
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
  lost_alone     smallint not null default 0,
  alone          boolean not null default false,
  unknown_before boolean not null default false,
  op             text not null default 'action' check (op in ('action', 'compensate')),
  last_outcome   text check (last_outcome in ('success', 'failure', 'ongoing', 'unknown', 'unsent'))
) with (
  fillfactor = 33,
  vacuum_truncate = off,
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 100,
  autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_vacuum_cost_delay = 1,
  autovacuum_analyze_scale_factor = 0.5
);
create index task_run_at on pgsaga.task (run_at);
comment on table pgsaga.task is 'One queued try of one op of one step; a claim is (worker, epoch), and every write raises the epoch.';
comment on column pgsaga.task.step is 'Position in saga.steps, from 1.';
comment on column pgsaga.task.attempt is 'The number of this try of the op, from 1, tries of lost workers included.';
comment on column pgsaga.task.counted is 'Earlier tries that count against retry_limit: all but ongoing ones.';
comment on column pgsaga.task.bytes is 'Size of saga.steps as text: a worker bounds by it what it holds in memory.';
comment on column pgsaga.task.lost is 'Workers that died while they held this task; from 3 on it runs alone.';
comment on column pgsaga.task.lost_alone is 'Workers that died while they ran this task alone; at 10 the saga is stuck.';
comment on column pgsaga.task.unknown_before is 'Some earlier try of this op ended unknown: it may have taken effect.';

-- What happened, append-only. seq orders the events of a saga: each is taken under the lock of the saga or its only task.
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
  kind        text not null default 'attempt' check (kind in ('attempt', 'decision')),
  op          text check (op in ('action', 'compensate')),
  outcome     text check (outcome in ('success', 'failure', 'ongoing', 'unknown', 'unsent')),
  message     text,
  primary key (saga_id, seq),
  constraint attempt_is_whole check (kind <> 'attempt'
    or (step is not null and op is not null and attempt is not null and outcome is not null))
) partition by range (saga_id);
comment on table pgsaga.history is 'Append-only: one row a finished try (attempt) or a decision of a person.';
comment on column pgsaga.history.at is 'The end of the try, by the database''s clock.';
comment on column pgsaga.history.duration_us is 'Microseconds, measured by the worker; null when the worker was lost.';

-- Sagas that cannot go on without a person.
create table pgsaga.stuck (
  saga_id bigint primary key,
  step    text not null,
  reason  text not null,
  at      timestamptz not null default clock_timestamp()
);

-- Workers and their heartbeats. Logged, and ids are never used again: an UNLOGGED table is empty after a crash,
-- its identity restarts, and a new worker would own a dead one's tasks.
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
  denied     jsonb
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
comment on column pgsaga.worker.beat is 'A counter. Whoever sees it unchanged for a lease of its own time may declare the worker dead.';
comment on column pgsaga.worker.denied is 'Participants that this worker may not call, or does not know, and why: their tasks wait for another worker.';
comment on column pgsaga.worker.seen_at is 'For people only: no decision is taken by comparing clocks.';

-- Queues the first step of each saga that was really inserted: after `on conflict (gid) do nothing`
-- the transition table lacks the skipped rows. Wakes workers only when one is idle: an idle worker
-- holds the advisory lock 8101820131131281 exclusively, a try to share it fails just then. NOTIFY
-- on every insert would cost nine tenths of the rate.
create function pgsaga.queue_sagas() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into pgsaga.task (saga_id, step, op, format, bytes, run_at)
    select id, 1, 'action', format, octet_length(steps::text), clock_timestamp() from inserted;
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
create trigger queue_sagas after insert on pgsaga.saga
  referencing new table as inserted for each statement execute function pgsaga.queue_sagas();

create function pgsaga.refuse_delete_of_open_saga() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if old.finished_at is null then
    raise exception using errcode = 'restrict_violation',
      message = format('saga %s is %s: only a finished saga can be deleted', old.gid, old.status);
  end if;
  return old;
end
$$;
create trigger refuse_delete_of_open_saga before delete on pgsaga.saga
  for each row execute function pgsaga.refuse_delete_of_open_saga();

-- Keeps history partitions of a million sagas ready ahead of the newest saga id. Returns how many it made.
-- ATTACH takes only SHARE UPDATE EXCLUSIVE on the parent, so running settles do not wait; CREATE … PARTITION OF would block them.
create function pgsaga.make_history_partitions() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  width constant bigint := 1000000;
  first bigint;
  newest bigint;
  made int := 0;
begin
  select last_value / width into newest from pgsaga.saga_id_seq;
  -- After the last that exists, without a gap: sagas may have been inserted by the million while no worker ran.
  select coalesce(max(substring(c.relname from '[0-9]+$')::bigint) + 1, 0) into first
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'pgsaga.history'::regclass;
  for n in first .. newest + 8 loop
    if to_regclass(format('pgsaga.history_%s', n)) is null then
      perform set_config('lock_timeout', '2s', true);
      perform pg_advisory_xact_lock(8101820131131282);
      if to_regclass(format('pgsaga.history_%s', n)) is null then
        execute format('create table pgsaga.history_%s (like pgsaga.history including defaults including constraints)', n);
        execute format('alter table pgsaga.history attach partition pgsaga.history_%s for values from (%s) to (%s)',
                       n, n * width, (n + 1) * width);
        made := made + 1;
      end if;
    end if;
  end loop;
  return made;
end
$$;
select pgsaga.make_history_partitions();

-- For people: a saga's events in order.
create view pgsaga.saga_timeline as
  select s.gid, h.seq, h.at, h.kind,
         coalesce(s.steps -> (h.step - 1) ->> 'name', lpad(h.step::text, greatest(2, length(h.step::text)), '0')) as step,
         h.op, h.attempt, h.outcome, h.status_code, h.duration_us * interval '1 microsecond' as duration, h.message, h.worker
  from pgsaga.history h join pgsaga.saga s on s.id = h.saga_id;

-- For people and exporters: the queue in one row. Reads the hot table only. A row that was changed
-- by hand may be due since infinity, which cannot be subtracted.
create view pgsaga.queue_stats as
  select count(*) filter (where worker is null and run_at <= t.now) as due,
         count(*) filter (where worker is null and run_at > t.now) as waiting,
         count(*) filter (where worker is not null) as running,
         coalesce(t.now - min(greatest(run_at, 'epoch')) filter (where worker is null and run_at <= t.now), interval '0') as oldest_due_age,
         (select count(*) from pgsaga.stuck) as stuck,
         (select count(*) from pgsaga.worker where not dead) as workers
  from (select clock_timestamp() as now) t left join pgsaga.task on true
  group by t.now;

-- Least rights. Functions are executable by PUBLIC unless revoked.
revoke all on all functions in schema pgsaga from public;
revoke all on schema pgsaga from public;
grant usage on schema pgsaga to pgsaga_producer, pgsaga_worker, pgsaga_reader, pgsaga_operator;

grant insert (gid, steps, retry_interval, retry_limit, request_timeout, headers, labels) on pgsaga.saga to pgsaga_producer;
grant select (gid, status, reason, result) on pgsaga.saga to pgsaga_producer;

grant select on pgsaga.saga, pgsaga.history, pgsaga.stuck, pgsaga.migration to pgsaga_worker;
grant update (status, reason, result, finished_at) on pgsaga.saga to pgsaga_worker;
grant select, insert, update, delete on pgsaga.task, pgsaga.worker to pgsaga_worker;
grant insert on pgsaga.history, pgsaga.stuck to pgsaga_worker;
grant usage on sequence pgsaga.history_seq to pgsaga_worker;
grant execute on function pgsaga.make_history_partitions() to pgsaga_worker;

grant select on all tables in schema pgsaga to pgsaga_reader, pgsaga_operator;
-- `pgsaga doctor` compares each sequence with its tables.
grant select on all sequences in schema pgsaga to pgsaga_reader, pgsaga_operator;
