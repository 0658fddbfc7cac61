-- A bad row is refused by the INSERT itself, so that nothing malformed reaches a worker. The producer crate says the
-- same words before the database is asked (producer/src/validate.rs); tests/cases/bad_input.json holds both to it.

-- Words: `<place>: found <what>; allowed: <what>`, SQLSTATE 23514, the gid in the detail. The first error in a fixed
-- order wins: gid, the read-only columns, the other columns, then step by step.
--
-- Fast because every saga pays for it: one pass, expressions that PL/pgSQL evaluates without SPI, the definition printed
-- once, and what is rare (headers, limits, large or deep payloads) behind one cheap test. No helper function: it runs
-- with the producer's rights, and the producer would need EXECUTE on it. Lengths are compared apart from the
-- patterns, because a bounded repetition makes a pattern as slow as it is long.
create function pgsaga.check_saga() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  steps_text text;
  step_count int := 0;
  large boolean;     -- some payload may be over its limit of bytes
  deep boolean;      -- some payload may be nested too deep
  names text[];
  step jsonb;
  step_name text;
  step_place text := '';
  url text;
  number jsonb;
  headers jsonb;
  entry_count int;
  entry_key text;
  -- What is reported: `what` as it is, else described from `value`.
  place text;
  what text;
  value jsonb;
  allowed text;
begin
  <<checks>>
  begin
    if new.gid is null or new.gid !~ '^[A-Za-z0-9._:-]+$' or length(new.gid) > 128 then
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
       or new.request_timeout is distinct from interval '3 seconds' then
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
      if new.request_timeout is null or extract(epoch from new.request_timeout) not between 0.001 and 3600 then
        place := 'request_timeout';
        what := trim_scale(extract(epoch from new.request_timeout)) || ' seconds';
        allowed := 'from 0.001 to 3,600 seconds';
        exit checks;
      end if;
      -- Stored as a plain number of seconds: a month or a day would depend on the calendar when it is added.
      new.retry_interval := make_interval(secs => extract(epoch from new.retry_interval)::float8);
      new.request_timeout := make_interval(secs => extract(epoch from new.request_timeout)::float8);
    end if;

    if jsonb_typeof(new.steps) = 'array' then
      step_count := jsonb_array_length(new.steps);
    end if;

    -- 0 is the saga itself: its headers obey the rules of a step's.
    for position in 0 .. least(step_count, 1000) loop
      if position = 0 then
        headers := new.headers;
      else
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
          if jsonb_typeof(value) <> 'string' or step_name !~ '^[A-Za-z0-9._:-]+$' or length(step_name) > 64 then
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

        if step - '{name,action,compensate,payload,compensate_payload,headers,retry_limit,retry_interval_seconds,request_timeout_seconds}'::text[] <> '{}' then
          select key into entry_key from jsonb_object_keys(step
            - '{name,action,compensate,payload,compensate_payload,headers,retry_limit,retry_interval_seconds,request_timeout_seconds}'::text[]) key limit 1;
          place := 'step "' || step_name || '"';
          what := 'key ' || to_json(left(entry_key, 64) || case when length(entry_key) > 64 then '…' else '' end);
          allowed := 'the keys name, action, compensate, payload, compensate_payload, headers, retry_limit, retry_interval_seconds, request_timeout_seconds';
          exit checks;
        end if;

        -- The same grammar as producer/src/url.rs: http or https in lower case, a host, maybe a port from 1 to 65535,
        -- maybe a path or query of visible ASCII; no user, fragment or backslash. A host is names with single dots
        -- between them, of which the last is no number, because URL parsers read such a host as an IPv4 address and
        -- refuse most; or a plain IPv4 address; or (the last pattern, H is a group) an IPv6 address of hexadecimal groups.
        -- First what nearly every URL looks like, all of it within the second: a sixth of the time.
        foreach entry_key in array '{action,compensate}'::text[] loop
          value := step -> entry_key;
          continue when value is null and entry_key = 'compensate';
          url := value #>> '{}';
          if value is null or jsonb_typeof(value) <> 'string' or octet_length(url) > 2048 or not (
            (url like 'https://%' or url like 'http://%') and url !~ '[^!"$-\[\]-~]'
              and split_part(url, '/', 3) ~ '^[a-z][a-z0-9-]*(?:\.[a-z][a-z0-9-]*)*(?::[1-9][0-9]{0,3})?$'
            or url = ''
            or url ~ ('^https?://(?:'
              '(?:[A-Za-z0-9_-]+\.)*(?:[A-Za-z_-]|[1-9][0-9]*[A-Za-z_-]|0[0-9]*[A-WYZa-wyz_-]|0[0-9]+[Xx])[A-Za-z0-9_-]*'
              '|(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9]))'
              '(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?'
              '(?:[/?][!"$-\[\]-~]*)?$')
            or url ~ replace('^https?://\[(?:(?:H:){7}H|(?:H:){1,7}:|(?:H:){1,6}:H|(?:H:){1,5}(?::H){1,2}|(?:H:){1,4}(?::H){1,3}'
              '|(?:H:){1,3}(?::H){1,4}|(?:H:){1,2}(?::H){1,5}|H:(?::H){1,6}|:(?:(?::H){1,7}|:))\]'
              '(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?'
              '(?:[/?][!"$-\[\]-~]*)?$', 'H', '[0-9A-Fa-f]{1,4}')
          ) then
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
            -- Strict: the lax mode unwraps arrays before the filter, and would miss an array at the last level.
            if deep and jsonb_path_exists(value, 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")') then
              place := 'step "' || step_name || '": ' || entry_key;
              what := 'more than 64 levels';
              allowed := 'arrays and objects nested up to 64 deep';
              exit checks;
            end if;
          end loop;
        end if;

        continue when not step ?| '{headers,retry_limit,retry_interval_seconds,request_timeout_seconds}'::text[];
        headers := step -> 'headers';
        step_place := 'step "' || step_name || '": ';
      end if;

      if headers is not null then
        if jsonb_typeof(headers) <> 'object' then
          place := step_place || 'headers';
          value := headers;
          allowed := 'an object of strings';
          exit checks;
        end if;
        select count(*), (array_agg(h.key) filter (where
            h.key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' or length(h.key) > 128
            or lower(h.key) in ('host', 'content-length', 'content-type', 'connection', 'transfer-encoding', 'te', 'trailer',
                                'upgrade', 'keep-alive', 'expect', 'proxy-authorization', 'proxy-connection',
                                'idempotency-key', 'saga-attempt', 'saga-timeout-ms', 'saga-action-key')
            or jsonb_typeof(h.value) <> 'string' or h.value #>> '{}' !~ '^[\t -~]*$' or length(h.value #>> '{}') > 4096))[1]
          into entry_count, entry_key
          from jsonb_each(headers) h;
        if entry_count > 64 then
          place := step_place || 'headers';
          what := entry_count || ' entries';
          allowed := 'up to 64';
          exit checks;
        end if;
        if entry_key is not null then
          place := step_place || 'headers ' || to_json(left(entry_key, 64) || case when length(entry_key) > 64 then '…' else '' end);
          if entry_key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' or length(entry_key) > 128 then
            what := 'a bad name';
            allowed := '1 to 128 of the characters A-Z a-z 0-9 ! # $ % & '' * + - . ^ _ ` | ~';
          elsif lower(entry_key) in ('host', 'content-length', 'content-type', 'connection', 'transfer-encoding', 'te', 'trailer',
                                     'upgrade', 'keep-alive', 'expect', 'proxy-authorization', 'proxy-connection',
                                     'idempotency-key', 'saga-attempt', 'saga-timeout-ms', 'saga-action-key') then
            what := 'a header that pgsaga or the transport sets';
            allowed := 'any other';
          else
            value := headers -> entry_key;
            allowed := 'a string of up to 4,096 visible ASCII characters, spaces and tabs';
          end if;
          exit checks;
        end if;
      end if;

      if position > 0 then
        number := step -> 'retry_limit';
        if not (case when number is null then true when jsonb_typeof(number) = 'number'
                 then number::numeric between 0 and 1000000 and number::numeric = trunc(number::numeric) else false end) then
          place := step_place || 'retry_limit';
          value := number;
          allowed := 'a whole number from 0 to 1,000,000';
          exit checks;
        end if;
        number := step -> 'retry_interval_seconds';
        if not (case when number is null then true when jsonb_typeof(number) = 'number'
                 then number::numeric between 0.001 and 86400 else false end) then
          place := step_place || 'retry_interval_seconds';
          value := number;
          allowed := 'from 0.001 to 86,400 seconds';
          exit checks;
        end if;
        number := step -> 'request_timeout_seconds';
        if not (case when number is null then true when jsonb_typeof(number) = 'number'
                 then number::numeric between 0.001 and 3600 else false end) then
          place := step_place || 'request_timeout_seconds';
          value := number;
          allowed := 'from 0.001 to 3,600 seconds';
          exit checks;
        end if;
        continue;
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
      -- A payload nested 65 deep shows 65 brackets, its step's and the outermost.
      steps_text := new.steps::text;
      large := octet_length(steps_text) > 1048576;
      deep := length(steps_text) - length(replace(replace(steps_text, '[', ''), '{', '')) > 66;
    end loop;

    new.format := 1;
    return new;
  end checks;

  if what is null then
    what := case coalesce(jsonb_typeof(value), 'nothing')
      when 'nothing' then 'nothing'
      when 'object' then 'an object'
      when 'array' then 'an array'
      when 'string' then to_json(left(value #>> '{}', 64) || case when length(value #>> '{}') > 64 then '…' else '' end)::text
      else left(value::text, 64) || case when length(value::text) > 64 then '…' else '' end end;
  end if;
  if allowed is null then
    allowed := '"" or a URL like https://host:port/path?query: up to 2,048 visible ASCII characters, without user, fragment or backslash';
  end if;
  raise exception using errcode = 'check_violation', message = place || ': found ' || what || '; allowed: ' || allowed,
    detail = 'in saga ' || coalesce(left(new.gid, 128), 'without a gid');
end
$$;
revoke all on function pgsaga.check_saga() from public;

create trigger check_saga before insert on pgsaga.saga
  for each row execute function pgsaga.check_saga();
