-- version 1: expands

-- Records a person's decision in the history, and wakes workers. Raises `version`, so that a plan
-- from before the decision does not apply. After the largest integer, which only an edit by hand
-- reaches, `version` starts again at 0, because the decision must not fail.
create or replace function pgsaga.record_decision(s pgsaga.saga, decision text, step int, comment text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform pgsaga.prepare_history(s.id);
  insert into pgsaga.history (saga_id, kind, decision, decided_by, step, message)
    values (s.id, 'decision', record_decision.decision, pgsaga.decider(), record_decision.step, record_decision.comment);
  -- control: decision-version
  update pgsaga.saga set version = case when version < 2147483647 then version + 1 else 0 end where id = s.id;
  perform pg_notify('pgsaga', '');
end
$$;
revoke all on function pgsaga.record_decision from public;
