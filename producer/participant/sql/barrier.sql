-- The participant's barrier, in DTM's table layout, so that handlers in Go, Java, Python and Rust
-- can share it. Idempotent: run it in each participant's own database, as often as you like. An
-- existing table of DTM's is kept.
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f producer/participant/sql/barrier.sql
-- A participant whose login is not the one that runs this file needs rights:
--   select dtm_barrier.allow('payments');

create schema if not exists dtm_barrier;

create sequence if not exists dtm_barrier.barrier_seq;

create table if not exists dtm_barrier.barrier (
  id          bigint not null default nextval('dtm_barrier.barrier_seq'),
  trans_type  varchar(45) default '',
  gid         varchar(128) default '',
  branch_id   varchar(128) default '',
  op          varchar(45) default '',
  barrier_id  varchar(45) default '',
  reason      varchar(45) default '',
  create_time timestamp(0) with time zone default now(),
  update_time timestamp(0) with time zone default now(),
  primary key (id),
  constraint uniq_barrier unique (gid, branch_id, op, barrier_id)
);
comment on table dtm_barrier.barrier is
  'Which operations of which sagas were done here. A row may go once its saga can no longer be called: well after it finished.';
comment on column dtm_barrier.barrier.reason is 'The op that inserted the row: another op than its own marks an op that never came.';

-- True: do the work, in this transaction. False: it was done before, or there is nothing to undo;
-- answer success. Call it first in the transaction that does the work: the row and the work commit
-- or roll back together.
--
-- A backward op first takes the place of its forward op. If that was free, the forward op never
-- ran: there is nothing to undo, and the forward op, should it still come, finds its place taken
-- and does nothing. A call that meets another transaction with the same key waits for that one's
-- end.
--
-- A handler that does several pieces of work enters once for each, with another barrier_id: 01, 02.
-- A second `enter` with one key in one transaction raises: as a repeated call, its work would be
-- left out. The keys of the transaction are kept in a setting that ends, as the rows do, with the
-- transaction or with the savepoint that is rolled back.
create or replace function dtm_barrier.enter(
  trans_type text, gid text, branch_id text, op text, barrier_id text default '01'
) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  forward constant text := case enter.op
    when 'compensate' then 'action' when 'cancel' then 'try' when 'rollback' then 'action' end;
  key constant text := json_build_array(enter.gid, enter.branch_id, enter.op, enter.barrier_id)::text;
  entered constant text := coalesce(current_setting('dtm_barrier.entered', true), '');
begin
  if enter.op is null or enter.op not in ('action', 'compensate', 'try', 'confirm', 'cancel', 'commit', 'rollback') then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('op: found %s; allowed: action, compensate, try, confirm, cancel, commit, rollback',
                       coalesce(to_json(left(enter.op, 64))::text, 'nothing'));
  end if;
  if enter.trans_type = '' or enter.gid = '' or enter.branch_id = '' or enter.barrier_id = ''
     or num_nulls(enter.trans_type, enter.gid, enter.branch_id, enter.barrier_id) > 0 then
    raise exception using errcode = 'invalid_parameter_value',
      message = 'trans_type, gid, branch_id, barrier_id: found nothing in one; allowed: the values of the call''s query';
  end if;
  -- control: barrier-entered-twice
  if strpos(entered, key) > 0 then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = format('barrier_id: found %s again for the %s of branch %s in one transaction; allowed: another barrier_id for each use: 01, 02, …',
                       to_json(enter.barrier_id), enter.op, to_json(enter.branch_id));
  end if;
  perform set_config('dtm_barrier.entered', entered || key, true);
  -- control: barrier-forward-first
  if forward is not null then
    insert into dtm_barrier.barrier (trans_type, gid, branch_id, op, barrier_id, reason, create_time, update_time)
      values (enter.trans_type, enter.gid, enter.branch_id, forward, enter.barrier_id, enter.op, now(), now())
      on conflict (gid, branch_id, op, barrier_id) do nothing;
    if found then
      -- Its own row too, as DTM writes it: whoever reads the table sees that it came.
      -- control: barrier-keeps-place
      insert into dtm_barrier.barrier (trans_type, gid, branch_id, op, barrier_id, reason, create_time, update_time)
        values (enter.trans_type, enter.gid, enter.branch_id, enter.op, enter.barrier_id, enter.op, now(), now())
        on conflict (gid, branch_id, op, barrier_id) do nothing;
      return false;
    end if;
  end if;
  insert into dtm_barrier.barrier (trans_type, gid, branch_id, op, barrier_id, reason, create_time, update_time)
    values (enter.trans_type, enter.gid, enter.branch_id, enter.op, enter.barrier_id, enter.op, now(), now())
    on conflict (gid, branch_id, op, barrier_id) do nothing;
  -- control: barrier-done-before
  return found;
end
$$;
comment on function dtm_barrier.enter(text, text, text, text, text) is
  'True: do the work in this transaction. False: done before or nothing to undo; answer success.';

-- Grants a participant's login what `enter` and the clients of DTM need, and nothing else. Run it
-- as the owner of the schema.
create or replace function dtm_barrier.allow(participant regrole) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('grant usage on schema dtm_barrier to %s', participant);
  execute format('grant select, insert on dtm_barrier.barrier to %s', participant);
  execute format('grant usage on sequence dtm_barrier.barrier_seq to %s', participant);
  execute format('grant execute on function dtm_barrier.enter(text, text, text, text, text) to %s', participant);
end
$$;
revoke all on function dtm_barrier.allow from public;
comment on function dtm_barrier.allow(regrole) is
  'Grants a participant''s login the rights that dtm_barrier.enter needs.';
