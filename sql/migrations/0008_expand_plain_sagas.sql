-- What most sagas look like is seen to be well by one expression. PL/pgSQL prepares each of its expressions anew in every
-- transaction, and the whole validation has some fifty of them on its way: of a single INSERT a third of the time. The first trigger
-- here says what it is sure of, by leaving `bytes` at more than 0; whatever else there is goes through the whole validation, which
-- alone refuses. Only functions and a trigger change, so workers of schema versions 5 to 7 go on beside it.
create function pgsaga.check_plain_saga() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  steps_text text := new.steps::text;
begin
  -- Plain is: nothing but a gid and one to three steps; each with a name of its own, an action, perhaps a compensation, both at
  -- hosts named in lower case, and perhaps a payload; together 2,000 bytes at most, not nested deep, without a reference.
  -- Strict: the lax mode would look into arrays. What cannot be said of a value (is unknown) makes its step not plain.
  new.bytes := case when
    new.gid ~ '^[A-Za-z0-9._:-]+$' and octet_length(new.gid) <= 128
    and new.status = 'submitted' and new.retry_interval = interval '10 seconds' and new.request_timeout = interval '3 seconds'
    and new.queue = 'default' and new.priority = 1 and new.format = 2 and not new.answers and new.version = 0
    and num_nonnulls(new.reason, new.result, new.finished_at, new.retry_limit, new.headers, new.labels, new.run_at,
      new.timeout_to_fail, new.compensate_retry_limit, new.result_mapping, new.progress, new.deadline, new.abort_reason,
      new.ending, new.fresh_keys) = 0
    and jsonb_typeof(new.steps) = 'array'
    and octet_length(steps_text) <= 2000 and strpos(steps_text, '$') = 0
    and octet_length(steps_text) - octet_length(translate(steps_text, '[{', '')) <= 66
    and case jsonb_array_length(new.steps)
      when 1 then true
      when 2 then new.steps -> 0 -> 'name' <> new.steps -> 1 -> 'name'
      when 3 then new.steps -> 0 -> 'name' <> new.steps -> 1 -> 'name' and new.steps -> 1 -> 'name' <> new.steps -> 2 -> 'name'
        and new.steps -> 0 -> 'name' <> new.steps -> 2 -> 'name'
      else false end
    and jsonb_array_length(jsonb_path_query_array(new.steps, $path$strict $[*] ? (
        @.name like_regex "^[A-Za-z0-9._:-]{1,64}$"
        && @.action like_regex "^https?://([a-z][a-z0-9-]*[.])*[a-z][a-z0-9-]*(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?(/[!\"%-\\[\\]-~]*)?$"
        && !exists (@.keyvalue() ? (@.key != "name" && @.key != "action" && @.key != "payload" && (@.key != "compensate"
          || !(@.value like_regex "^https?://([a-z][a-z0-9-]*[.])*[a-z][a-z0-9-]*(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?(/[!\"%-\\[\\]-~]*)?$")
          || (@.value like_regex "^https?://([a-z][a-z0-9-]*[.])*[a-z][a-z0-9-]*(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?(/[!\"%-\\[\\]-~]*)?$") is unknown)))
      )$path$, silent => true)) = jsonb_array_length(new.steps)
  then octet_length(steps_text) else 0 end;
  return new;
end
$$;
revoke all on function pgsaga.check_plain_saga() from public;

-- In the order of their names.
create trigger check_plain_saga before insert on pgsaga.saga for each row execute function pgsaga.check_plain_saga();
drop trigger check_saga on pgsaga.saga;
create trigger check_saga before insert on pgsaga.saga for each row when (new.bytes = 0) execute function pgsaga.check_saga();

-- As before, but PERFORM would run a query of its own to unlock, and each further expression is prepared in every transaction.
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
  -- A lock that could be shared is given back at once. CASE keeps the order.
  if (case
      when not found or current_setting('pgsaga.notify', true) = 'off' then false
      when pg_try_advisory_lock_shared(8101820131131281) then not pg_advisory_unlock_shared(8101820131131281)
      else true end) then
    notify pgsaga;
  end if;
  return null;
end
$$;
