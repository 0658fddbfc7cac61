-- Who decided, where many people share one login: a program that knows their names, such as `pgsaga ui`, gives the name as the
-- setting pgsaga.decided_by of its transaction. It stands before the session user, which no setting replaces. Only functions
-- change, so workers of schema versions 5 to 10 go on beside it.

-- The name, if there is one, and the session user, as `Ann Lee (pgsaga_ui)`.
create function pgsaga.decider() returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  person constant text := left(trim(current_setting('pgsaga.decided_by', true)), 64);
begin
  return case when coalesce(person, '') = '' then session_user else person || ' (' || session_user || ')' end;
end
$$;
revoke all on function pgsaga.decider() from public;

-- `version` may have been set to the largest integer by hand: it begins again at 0 then, so that
-- the decision does not fail.
create or replace function pgsaga.record_decision(s pgsaga.saga, decision text, step int, comment text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into pgsaga.history (saga_id, kind, decision, decided_by, step, message)
    values (s.id, 'decision', record_decision.decision, pgsaga.decider(), record_decision.step, record_decision.comment);
  -- control: decision-version
  update pgsaga.saga set version = case when version < 2147483647 then version + 1 else 0 end where id = s.id;
  perform pg_notify('pgsaga', '');
end
$$;

create or replace function pgsaga.pause(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update pgsaga.queue q set paused_at = clock_timestamp(), paused_by = pgsaga.decider() where q.name = pause.queue and paused_at is null;
  if not found and not exists (select from pgsaga.queue q where q.name = pause.queue) then
    raise exception using errcode = 'no_data_found', message = format('no saga was ever in the queue %s; queues: %s',
      to_json(coalesce(pause.queue, 'null')), (select string_agg(to_json(name)::text, ', ' order by name) from pgsaga.queue));
  end if;
end
$$;
