-- version 1: expands

-- Validates most sagas with one expression, and leaves the rest to check_saga. PL/pgSQL prepares
-- each of its expressions again in every transaction, and check_saga has about fifty of them on its
-- way: a third of the time of a single INSERT. This trigger sets `bytes` to more than 0 where it is
-- sure that a saga is valid. Every other saga keeps 0 and goes through check_saga, which alone
-- refuses.
create or replace function pgsaga.check_plain_saga() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  steps_text text := new.steps::text;
begin
  -- A plain saga has a gid, one to three steps, and no other column. Each step has a name that no
  -- other step has, an action, perhaps a compensation, and perhaps a payload. The URLs have hosts
  -- in lower case or short participant names. All steps together have at most 2,000 bytes, are not
  -- deeply nested, and contain no reference. The path is strict because lax mode would look into
  -- arrays. The type of a URL is asked first, because `!` of a condition that is unknown is unknown
  -- too, and exists() would not count its key.
  new.bytes := case when
    new.gid ~ '^[A-Za-z0-9._:-]+$' and octet_length(new.gid) <= 128
    and new.status = 'submitted' and new.retry_interval = interval '10 seconds' and new.request_timeout = interval '3 seconds'
    and new.queue = 'default' and new.priority = 1 and new.format = 2 and not new.answers and new.version = 0
    and num_nonnulls(new.reason, new.result, new.finished_at, new.retry_limit, new.headers, new.labels, new.run_at,
      new.timeout_to_fail, new.compensate_retry_limit, new.result_mapping, new.progress, new.deadline, new.abort_reason,
      new.ending, new.fresh_keys) = 0
    and jsonb_typeof(new.steps) = 'array'
    and octet_length(steps_text) <= 2000 and strpos(steps_text, '$') = 0
    and (strpos(steps_text, '?') = 0 or steps_text !~ '[?&;](?:gid|trans_type|branch_id|op)[=&;"]')
    and octet_length(steps_text) - octet_length(translate(steps_text, '[{', '')) <= 66
    and case jsonb_array_length(new.steps)
      when 1 then true
      when 2 then new.steps -> 0 -> 'name' <> new.steps -> 1 -> 'name'
      when 3 then new.steps -> 0 -> 'name' <> new.steps -> 1 -> 'name' and new.steps -> 1 -> 'name' <> new.steps -> 2 -> 'name'
        and new.steps -> 0 -> 'name' <> new.steps -> 2 -> 'name'
      else false end
    and jsonb_array_length(jsonb_path_query_array(new.steps, $path$strict $[*] ? (
        @.name like_regex "^[A-Za-z0-9._:-]{1,64}$"
        && exists (@.action)
        && !exists (@.keyvalue() ? (@.key != "name" && @.key != "payload"
          && !((@.key == "action" || @.key == "compensate") && @.value.type() == "string"
            && @.value like_regex "^(https?://([a-z][a-z0-9-]*[.])*[a-z][a-z0-9-]*(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?(/[!\"%-\\[\\]-~]*)?|participant:[a-z][a-z0-9_-]{0,15}/[A-Za-z0-9_~:@/-]*)$")))
      )$path$, silent => true)) = jsonb_array_length(new.steps)
  then octet_length(steps_text) else 0 end;
  -- A payload may hold the same text. Its saga then gets format 3 without need, which is harmless.
  if new.bytes > 0 and strpos(steps_text, '"participant:') > 0 then
    new.format := 3;
  end if;
  return new;
end
$$;
revoke all on function pgsaga.check_plain_saga from public;

-- Triggers run in the order of their names: this one before check_saga.
create or replace trigger check_plain_saga before insert on pgsaga.saga
  for each row execute function pgsaga.check_plain_saga();
