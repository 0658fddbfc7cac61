-- version 1: expands

-- Accepts most sagas with few expressions, and leaves the others to check_saga, which alone
-- refuses: it finds the words of an error, and does what only some sagas need. PL/pgSQL prepares
-- each function of its expressions again in every transaction, which costs more than to run it, so
-- what only some sagas have is behind a function. `bytes` is more than 0 where this is sure that a
-- saga is valid. Nothing here may accept what check_saga refuses, because nobody looks again.
--
-- It is sure where the row, written as one text, has the usual form: gid, queue, and up to three
-- steps without their payloads. A step has a name or none, an action, perhaps headers and a
-- compensation. URLs have hosts or IPv4 addresses, name participants, or are empty.
--
-- The keys of a step and the beginnings of URLs become one control character each, before a regular
-- expression reads the text: it costs as much as the number of places in it that are reached.
-- Postgres prints a control character that a string contains as an escape, so these stand for
-- nothing else. Names do not begin with a digit: steps without a name are called 01, 02 and so on.
create or replace function pgsaga.check_quickly() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  steps_text constant text := new.steps::text;
  -- Null where steps is no array of objects.
  outline constant text := case when not jsonb_path_exists(new.steps, 'strict $[*] ? (@.type() != "object")', silent => true)
    then replace(replace(replace(replace(replace(replace(replace(
      (new.steps #- '{0,payload}' #- '{1,payload}' #- '{2,payload}')::text,
      '"name": ', E'\x01'), '"action": ', E'\x02'), '"headers": ', E'\x03'), '"compensate": ', E'\x04'),
      '"http://', E'\x05'), '"https://', E'\x05'), '"participant:', E'\x06') end;
begin
  new.bytes := case when
    new.status = 'submitted' and new.priority between 0 and 3 and new.format = 1 and not new.answers and new.version = 0
    and new.retry_interval = interval '10 seconds' and new.request_timeout = interval '3 seconds'
    and num_nonnulls(new.reason, new.result, new.finished_at, new.retry_limit, new.run_at, new.timeout_to_fail,
      new.compensate_retry_limit, new.result_mapping, new.progress, new.deadline, new.abort_reason, new.ending, new.fresh_keys) = 0
    and octet_length(new.gid) <= 128 and octet_length(new.queue) <= 64
    -- So short a text has no URL over its limit, and no payload.
    and octet_length(outline) <= 2048 and octet_length(steps_text) <= 1048576
    -- Two equal names, or a payload that is nested too deep. Strict, because lax mode would apply
    -- the condition to each step.
    and not jsonb_path_exists(new.steps, 'strict $ ? (@[0].name == @[1].name || @[0].name == @[2].name || @[1].name == @[2].name
      || exists(@.**{66}))')
    -- A payload that refers to an answer has a key that begins with a dollar sign.
    and strpos(steps_text, '"$') = 0
    and outline !~ E'\x01"[^"]{65}'
    and case when num_nonnulls(new.labels, new.headers) = 0 and strpos(outline, E'\x03') = 0 then true
      else pgsaga.check_extras_quickly(new.labels, new.headers, outline) end
    -- The gid and the queue; then each step: its name, and URLs and headers, of which the action,
    -- which no comma precedes, is the first. No key of a query begins like gid, trans_type,
    -- branch_id or op.
    and concat(new.gid, ' ', new.queue, outline) ~ (
      E'^[A-Za-z0-9._:-]+ [A-Za-z0-9._:-]+[[](?:[{](?:\x01"[A-Za-z._:-][A-Za-z0-9._:-]*", )?(?:(?:\x02|, \x04)(?:'
      '\x05(?:[A-Za-z][A-Za-z0-9-]*(?:[.][A-Za-z][A-Za-z0-9-]*)*'
      '|(?:(?:1[0-9]{2}|2[0-4][0-9]|25[0-5]|[1-9]?[0-9])[.]){3}(?:1[0-9]{2}|2[0-4][0-9]|25[0-5]|[1-9]?[0-9]))'
      '(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?'
      '(?:/[]!$%(-:<>@-Z_a-~[-]*(?:[?&;][]!$%(-:<>@-Z_ac-fh-np-su-~[-][]!$%(-:<=>@-Z_a-~[-]*)*)?'
      '|\x06[a-z][a-z0-9_-]{0,30}/[A-Za-z0-9_~:@/-]*|")"'
      '|, \x03[{](?:"[A-Za-z0-9._-]+": "[]!#-Z^-~ [-]*"(?:, )?)*[}])+[}][],] ?)+$')
  then octet_length(steps_text) else 0 end;
  return new;
end
$$;
revoke all on function pgsaga.check_quickly from public;

-- Triggers run in the order of their names: this one before check_saga.
create or replace trigger check_quickly before insert on pgsaga.saga
  for each row execute function pgsaga.check_quickly();
