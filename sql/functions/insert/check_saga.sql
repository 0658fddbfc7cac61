-- version 1: expands

-- Refuses a bad row in the INSERT itself, so that nothing malformed reaches a worker. The producer
-- crate says the same words before the database is asked (producer/src/validate); the cases of
-- tests/cases/bad_input.json hold both to it.
--
-- Words: `<place>: found <what>; allowed: <what>`, SQLSTATE 23514, the gid in the detail. The first
-- error in a fixed order wins: the gid, the read-only columns, the other columns, then step by
-- step, then the rules of the whole order (check_order).
--
-- Most sagas do not come here, because check_quickly accepts them. What is rare (headers, limits,
-- large or deep payloads) is behind one cheap test. Lengths are compared apart from the patterns,
-- because a bounded repetition makes a pattern as slow as it is long.
--
-- The function runs with its owner's rights, because check_order must not be executable by
-- producers.
create or replace function pgsaga.check_saga() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  -- The keys of a step, as in STEP_KEYS of sql/src/contract/step_key.rs: those that most steps
  -- have, those that have a rule below, and numbers, each with its lowest and highest value. A
  -- number is of seconds where its key says so, else a whole one.
  usual_keys constant text[] := '{name,action,compensate,payload}'::text[];
  other_keys constant text[] := '{compensate_payload,after,pivot,headers}'::text[];
  number_keys constant text[] := '{retry_limit,compensate_retry_limit,retry_interval_seconds,request_timeout_seconds,wait_seconds}'::text[];
  number_min constant numeric[] := '{0,0,0.001,0.001,0.001}'::numeric[];
  number_max constant numeric[] := '{1000000,1000000,86400,86400,31536000}'::numeric[];
  steps_text text;
  step_count int := 0;
  large boolean;     -- some payload may be over its limit of bytes
  deep boolean;      -- some payload may be nested too deep
  names text[];
  parallel boolean := false;   -- some step waits for a completion, or not simply for the step before it
  pivot int := 0;              -- the position of the pivot
  step jsonb;
  rest jsonb;
  step_name text;
  step_place text;
  in_seconds boolean;
  entry_count int;
  entry_key text;
  refusal record;    -- the error that check_headers found
  -- The error. Where `what` is null, it is made from `value`.
  place text;
  what text;
  value jsonb;
  suffix text;
  allowed text;
begin
  <<checks>>
  begin
    -- control: gid-characters
    if new.gid is null or new.gid !~ '^[A-Za-z0-9._:-]+$' or octet_length(new.gid) > 128 then
      place := 'gid';
      value := to_jsonb(new.gid);
      allowed := '1 to 128 of the characters A-Z a-z 0-9 . _ : -';
      exit checks;
    end if;

    if new.status is distinct from 'submitted' or num_nonnulls(new.reason, new.result, new.finished_at) > 0 then
      if new.status is distinct from 'submitted' then
        place := 'status';
        value := to_jsonb(new.status);
        allowed := '"submitted"';
      else
        place := case when new.reason is not null then 'reason' when new.result is not null then 'result' else 'finished_at' end;
        value := coalesce(to_jsonb(new.reason), new.result, to_jsonb(new.finished_at));
        allowed := 'nothing, it is read-only';
      end if;
      exit checks;
    end if;

    if new.retry_interval is distinct from interval '10 seconds' or new.retry_limit is not null
       or new.request_timeout is distinct from interval '3 seconds'
       or new.queue is distinct from 'default' or new.priority is distinct from 1
       or num_nonnulls(new.run_at, new.timeout_to_fail, new.compensate_retry_limit, new.result_mapping) > 0 then
      if new.retry_interval is null or extract(epoch from new.retry_interval) not between 0.001 and 86400 then
        place := 'retry_interval';
        what := trim_scale(extract(epoch from new.retry_interval)) || ' seconds';
        allowed := 'from 0.001 to 86,400 seconds';
        exit checks;
      end if;
      if new.retry_limit not between 0 and 1000000 then
        place := 'retry_limit';
        value := to_jsonb(new.retry_limit);
        allowed := 'a whole number from 0 to 1,000,000';
        exit checks;
      end if;
      if new.request_timeout is null or extract(epoch from new.request_timeout) not between 0.001 and 86400 then
        place := 'request_timeout';
        what := trim_scale(extract(epoch from new.request_timeout)) || ' seconds';
        allowed := 'from 0.001 to 86,400 seconds';
        exit checks;
      end if;
      -- Intervals are stored in seconds, because months and days depend on the calendar.
      new.retry_interval := make_interval(secs => extract(epoch from new.retry_interval)::float8);
      new.request_timeout := make_interval(secs => extract(epoch from new.request_timeout)::float8);
      if new.queue is null or new.queue !~ '^[A-Za-z0-9._:-]+$' or octet_length(new.queue) > 64 then
        place := 'queue';
        value := to_jsonb(new.queue);
        allowed := '1 to 64 of the characters A-Z a-z 0-9 . _ : -';
        exit checks;
      end if;
      if new.priority is null or new.priority not between 0 and 3 then
        place := 'priority';
        value := to_jsonb(new.priority);
        allowed := 'a whole number from 0 to 3';
        exit checks;
      end if;
      -- Before the year 10000, so that run_at + timeout_to_fail fits into timestamptz.
      if not isfinite(new.run_at) or new.run_at >= '10000-01-01 00:00:00+00' then
        place := 'run_at';
        value := to_jsonb(new.run_at);
        what := case when isfinite(new.run_at) then 'a time after the year 9999' end;
        allowed := 'a finite time before the year 10000';
        exit checks;
      end if;
      if extract(epoch from new.timeout_to_fail) not between 0.001 and 31536000 then
        place := 'timeout_to_fail';
        what := trim_scale(extract(epoch from new.timeout_to_fail)) || ' seconds';
        allowed := 'from 0.001 to 31,536,000 seconds';
        exit checks;
      end if;
      new.timeout_to_fail := make_interval(secs => extract(epoch from new.timeout_to_fail)::float8);
      if new.compensate_retry_limit not between 0 and 1000000 then
        place := 'compensate_retry_limit';
        value := to_jsonb(new.compensate_retry_limit);
        allowed := 'a whole number from 0 to 1,000,000';
        exit checks;
      end if;
      if octet_length(new.result_mapping::text) > 1048576 then
        place := 'result_mapping';
        what := octet_length(new.result_mapping::text) || ' bytes';
        allowed := 'up to 1,048,576 bytes as Postgres prints the JSON';
        exit checks;
      end if;
      if jsonb_path_exists(new.result_mapping, 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")') then
        place := 'result_mapping';
        what := 'more than 64 levels';
        allowed := 'arrays and objects nested up to 64 deep';
        exit checks;
      end if;
    end if;

    if jsonb_typeof(new.steps) = 'array' then
      step_count := jsonb_array_length(new.steps);
    end if;

    if new.headers is not null then
      refusal := pgsaga.check_headers(new.headers);
      exit checks when refusal.place is not null;
    end if;

    if new.labels is not null then
      if jsonb_typeof(new.labels) <> 'object' then
        place := 'labels';
        value := new.labels;
        allowed := 'an object of strings';
        exit checks;
      end if;
      select count(*), (array_agg(l.key) filter (where l.key !~ '^[A-Za-z0-9._:/-]+$' or length(l.key) > 64
          or jsonb_typeof(l.value) <> 'string' or length(l.value #>> '{}') > 256))[1]
        into entry_count, entry_key
        from jsonb_each(new.labels) l;
      if entry_count > 64 then
        place := 'labels';
        what := entry_count || ' entries';
        allowed := 'up to 64';
        exit checks;
      end if;
      if entry_key is not null then
        place := 'labels ' || to_json(left(entry_key, 64) || case when length(entry_key) > 64 then '…' else '' end);
        if entry_key !~ '^[A-Za-z0-9._:/-]+$' or length(entry_key) > 64 then
          what := 'a bad key';
          allowed := '1 to 64 of the characters A-Z a-z 0-9 . _ : / -';
        else
          value := new.labels -> entry_key;
          allowed := 'a string of up to 256 characters';
        end if;
        exit checks;
      end if;
    end if;

    if step_count not between 1 and 1000 then
      place := 'steps';
      value := new.steps;
      what := case when jsonb_typeof(new.steps) = 'array' then step_count || ' steps' end;
      allowed := 'an array of 1 to 1,000 steps';
      exit checks;
    end if;
    -- A payload nested 65 deep has 65 brackets, and two are around it: its step's and the
    -- array's.
    steps_text := new.steps::text;
    large := octet_length(steps_text) > 1048576;
    deep := octet_length(steps_text) - octet_length(replace(replace(steps_text, '[', ''), '{', '')) > 66;

    for position in 1 .. step_count loop
      step := new.steps -> (position - 1);
      if jsonb_typeof(step) <> 'object' then
        place := 'steps[' || position || ']';
        value := step;
        allowed := 'an object';
        exit checks;
      end if;

      value := step -> 'name';
      if value is null then
        step_name := case when position < 10 then '0' || position else position::text end;
      else
        step_name := step ->> 'name';
        -- control: step-name-characters
        if jsonb_typeof(value) <> 'string' or step_name !~ '^[A-Za-z0-9._:-]+$' or octet_length(step_name) > 64 then
          place := 'steps[' || position || ']: name';
          allowed := '1 to 64 of the characters A-Z a-z 0-9 . _ : -';
          exit checks;
        end if;
      end if;
      if step_name = any (names) then
        place := 'steps[' || position || ']: name';
        what := to_json(step_name) || ' again';
        allowed := 'a name that no earlier step has (without one, a step is named by its position: 01, 02, …)';
        exit checks;
      end if;
      names := names || step_name;

      -- Most steps have no other key.
      rest := step - usual_keys;
      if rest <> '{}' and rest - other_keys - number_keys <> '{}' then
        select key into entry_key from jsonb_object_keys(rest - other_keys - number_keys) key limit 1;
        place := 'step "' || step_name || '"';
        what := 'key ' || to_json(left(entry_key, 64) || case when length(entry_key) > 64 then '…' else '' end);
        allowed := concat('the keys ', array_to_string(usual_keys || other_keys || number_keys, ', '));
        exit checks;
      end if;

      foreach entry_key in array '{action,compensate}'::text[] loop
        value := step -> entry_key;
        continue when value is null and (entry_key = 'compensate' or rest ? 'wait_seconds');
        allowed := case when entry_key = 'action' and rest ? 'wait_seconds' then 'none beside wait_seconds' else pgsaga.check_url(value) end;
        if allowed is not null then
          place := 'step "' || step_name || '": ' || entry_key;
          exit checks;
        end if;
      end loop;

      if large or deep then
        foreach entry_key in array '{payload,compensate_payload}'::text[] loop
          value := step -> entry_key;
          if large and octet_length(value::text) > 1048576 then
            place := 'step "' || step_name || '": ' || entry_key;
            what := octet_length(value::text) || ' bytes';
            allowed := 'up to 1,048,576 bytes as Postgres prints the JSON';
            exit checks;
          end if;
          -- Strict, because lax mode unwraps arrays before the filter and would miss an array at
          -- the last level.
          if deep and jsonb_path_exists(value, 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")') then
            place := 'step "' || step_name || '": ' || entry_key;
            what := 'more than 64 levels';
            allowed := 'arrays and objects nested up to 64 deep';
            exit checks;
          end if;
        end loop;
      end if;

      continue when rest = '{}';
      step_place := 'step "' || step_name || '": ';
      if rest ? 'headers' then
        refusal := pgsaga.check_headers(rest -> 'headers');
        exit checks when refusal.place is not null;
      end if;
      parallel := parallel or rest ? 'wait_seconds';
      if rest ?| number_keys then
        for n in 1 .. cardinality(number_keys) loop
          value := rest -> number_keys[n];
          continue when value is null;
          in_seconds := right(number_keys[n], 8) = '_seconds';
          if not (case when jsonb_typeof(value) <> 'number' then false
            else value::numeric between number_min[n] and number_max[n] and (in_seconds or value::numeric = trunc(value::numeric)) end)
          then
            place := step_place || number_keys[n];
            allowed := case when in_seconds then 'from ' else 'a whole number from ' end || number_min[n] || ' to '
              || to_char(number_max[n], 'FM9,999,999,999') || case when in_seconds then ' seconds' else '' end;
            exit checks;
          end if;
        end loop;
      end if;

      value := step -> 'after';
      if value <> (case when position = 1 then '[]' else jsonb_build_array(names[position - 1]) end) then
        parallel := true;
        place := step_place || 'after';
        if jsonb_typeof(value) <> 'array' then
          allowed := 'an array of up to 1,000 names of other steps';
          exit checks;
        end if;
        if jsonb_array_length(value) > 1000 then
          what := jsonb_array_length(value) || ' names';
          allowed := 'an array of up to 1,000 names of other steps';
          exit checks;
        end if;
        select a.entry, case when jsonb_typeof(a.entry) <> 'string' then '' when a.entry = to_jsonb(step_name) then ' itself' else ' again' end
          into value, suffix
          from (select e.entry, e.nth, row_number() over (partition by e.entry order by e.nth) as time
                from jsonb_array_elements(value) with ordinality e (entry, nth)) a
          where a.time > 1 or a.entry = to_jsonb(step_name) or jsonb_typeof(a.entry) <> 'string'
          order by a.nth limit 1;
        if found then
          allowed := 'names of other steps of the saga, each once';
          exit checks;
        end if;
      end if;
      value := step -> 'pivot';
      if value = 'true' and pivot = 0 then
        pivot := position;
      elsif value <> 'false' then
        place := step_place || 'pivot';
        suffix := case when value = 'true' then ' again' end;
        allowed := case when value = 'true' then 'one pivot a saga, and "' || names[pivot] || '" is it' else 'true or false' end;
        exit checks;
      end if;
    end loop;

    new.bytes := octet_length(steps_text);
    -- These columns are derived. An INSERT by a role that may set them does not decide them either.
    if parallel or pivot > 0 or strpos(steps_text, '$') > 0 or new.format is distinct from 1 or new.answers is distinct from false
       or new.version is distinct from 0
       or num_nonnulls(new.result_mapping, new.timeout_to_fail, new.progress, new.deadline, new.abort_reason, new.ending, new.fresh_keys) > 0
    then
      select o.place, o.what, o.value, o.allowed, o.progress, o.answers into place, what, value, allowed, new.progress, new.answers
        from pgsaga.check_order(
          new.steps, names, parallel, pivot, strpos(steps_text, '"$from"') > 0 or strpos(steps_text, '"$literal"') > 0,
          new.result_mapping) o;
      exit checks when place is not null;
      new.deadline := greatest(new.created_at, new.run_at) + new.timeout_to_fail;
      new.format := 1;
      new.version := 0;
      new.abort_reason := null;
      new.ending := null;
      new.fresh_keys := null;
    end if;
    return new;
  end checks;

  if not refusal is null then
    place := coalesce(step_place, '') || refusal.place;
    what := refusal.what;
    value := refusal.value;
    allowed := refusal.allowed;
  end if;
  if what is null then
    what := case coalesce(jsonb_typeof(value), 'nothing')
      when 'nothing' then 'nothing'
      when 'object' then 'an object'
      when 'array' then 'an array'
      when 'string' then to_json(left(value #>> '{}', 64) || case when length(value #>> '{}') > 64 then '…' else '' end)::text
      else left(value::text, 64) || case when length(value::text) > 64 then '…' else '' end end;
  end if;
  raise exception using errcode = 'check_violation', message = place || ': found ' || what || coalesce(suffix, '') || '; allowed: ' || allowed,
    detail = 'in saga ' || coalesce(left(new.gid, 128), 'without a gid');
end
$$;
revoke all on function pgsaga.check_saga from public;

create or replace trigger check_saga before insert on pgsaga.saga
  for each row when (new.bytes = 0) execute function pgsaga.check_saga();
