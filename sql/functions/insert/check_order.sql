-- version 1: expands

-- Checks the rules that need the whole order, after check_saga has checked the steps one by one:
-- names in `after` that no step has, cycles, the pivot, and what payloads and the result refer to.
-- `place` is null where there is no error. check_saga calls it only for sagas with such extras.
create or replace function pgsaga.check_order(
  steps jsonb, names text[], parallel boolean, pivot int, refers boolean, mapping jsonb,
  out place text, out what text, out value jsonb, out allowed text,   -- the error, for check_saga
  out progress text, out answers boolean                           -- the columns of these names
) language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  total constant int := cardinality(names);
  positions jsonb;       -- by name, from 1
  after jsonb;
  name text;
  -- Positions of the steps that each step waits for. Those of step n begin at waits[starts[n]].
  waits int[] := '{}';
  starts int[] := '{}';
  -- A depth-first walk from each step to the steps that it waits for.
  state int[];           -- 0; 1 while the step is in the path; 2 once all steps before it are known
  cursor int[];          -- by step: the next entry of `waits` to visit
  path int[] := '{}';    -- each step in the path waits for the next one
  depth int;
  step int;
  before int;
  comes_before bit varying[];   -- by step: a bit for each step before it
  cycle int[];
  -- Strict mode visits a value before the values in it, in jsonb's order, and each value once.
  marked constant jsonpath := 'strict $.** ? (@.type() == "object" && (exists (@."$from") || exists (@."$literal")))';
  payload jsonb;
  entry_key text;
  reference jsonb;
  skip int;
begin
  answers := false;
  select jsonb_object_agg(n.name, n.position) into positions from unnest(names) with ordinality n (name, position);

  if parallel then
    progress := '';
    for position in 1 .. total loop
      starts[position] := cardinality(waits) + 1;
      after := steps -> (position - 1) -> 'after';
      if after is null and position > 1 then
        waits[cardinality(waits) + 1] := position - 1;
      elsif after is not null then
        for name in select jsonb_array_elements_text(after) loop
          before := (positions ->> name)::int;
          if before is null then
            place := 'step "' || names[position] || '": after';
            value := to_jsonb(name);
            allowed := 'names of other steps of the saga, each once';
            return;
          end if;
          waits[cardinality(waits) + 1] := before;
        end loop;
      end if;
      progress := progress || case when starts[position] > cardinality(waits) then 'a' else '.' end;
    end loop;
    starts[total + 1] := cardinality(waits) + 1;

    cursor := starts;
    state := array_fill(0, array[total]);
    comes_before := array_fill(repeat('0', total)::bit varying, array[total]);
    for position in 1 .. total loop
      continue when state[position] = 2;
      depth := 1;
      path[1] := position;
      state[position] := 1;
      while depth > 0 loop
        step := path[depth];
        if cursor[step] = starts[step + 1] then
          state[step] := 2;
          depth := depth - 1;
          continue;
        end if;
        before := waits[cursor[step]];
        if state[before] = 2 then
          comes_before[step] := set_bit(comes_before[step] | comes_before[before], before - 1, 1);
          cursor[step] := cursor[step] + 1;
        elsif state[before] = 1 then
          -- The path from `before` to its end is a cycle. The message begins at the cycle's first
          -- step by position, and names at most 9 steps.
          cycle := path[array_position(path, before) : depth];
          depth := array_position(cycle, (select min(c) from unnest(cycle) c));
          cycle := cycle[depth:] || cycle[:depth];
          place := 'step "' || names[cycle[1]] || '": after';
          select 'a cycle, ' || string_agg('"' || names[c.step] || '"', ' after ' order by c.nth) into what
            from unnest(cycle[:9]) with ordinality c (step, nth);
          what := what || case when cardinality(cycle) > 9 then ' after …' else '' end;
          allowed := 'an order without cycles';
          return;
        else
          depth := depth + 1;
          path[depth] := before;
          state[before] := 1;
        end if;
      end loop;
    end loop;
  end if;

  if pivot > 0 then
    for position in case when parallel then 1 else pivot + 1 end .. total loop
      continue when position = pivot;
      if parallel then
        continue when get_bit(comes_before[pivot], position - 1) = 1;
        if get_bit(comes_before[position], pivot - 1) = 0 then
          place := 'step "' || names[position] || '"';
          what := 'no order between it and the pivot "' || names[pivot] || '"';
          allowed := 'each step before or after the pivot';
          return;
        end if;
      end if;
      if steps -> (position - 1) ? 'compensate' then
        place := 'step "' || names[position] || '": compensate';
        what := 'a compensation after the pivot "' || names[pivot] || '"';
        allowed := 'none there, the saga only goes forward';
        return;
      end if;
    end loop;
  end if;

  -- Position total + 1 is result_mapping.
  for position in case when refers then 1 else total + 1 end .. case when mapping is null then total else total + 1 end loop
    foreach entry_key in array case when position > total then '{result_mapping}' else '{payload,compensate_payload}' end::text[] loop
      payload := case when position > total then mapping else steps -> (position - 1) -> entry_key end;
      place := case when position > total then '' else 'step "' || names[position] || '": ' end || entry_key;
      continue when payload is null or not jsonb_path_exists(payload, marked);
      skip := 0;   -- references that are left inside a literal, which is not interpreted
      for reference in select jsonb_path_query(payload, marked) loop
        if skip > 0 then
          skip := skip - 1;
          continue;
        end if;
        if reference ? '$from' then
          answers := true;
          if reference - '{$from,path}'::text[] <> '{}' then
            select key into entry_key from jsonb_object_keys(reference - '{$from,path}'::text[]) key limit 1;
            place := place || ': "$from"';
            what := 'key ' || to_json(left(entry_key, 64) || case when length(entry_key) > 64 then '…' else '' end);
            allowed := 'the keys $from and path';
            return;
          end if;
          value := reference -> '$from';
          before := case when jsonb_typeof(value) = 'string' then (positions ->> (value #>> '{}'))::int end;
          if before is null or position <= total and not (
            case when parallel then get_bit(comes_before[position], before - 1) = 1 else before < position end
            or before = position and entry_key = 'compensate_payload'
          ) then
            place := place || ': "$from"';
            allowed := case entry_key when 'result_mapping' then 'the name of a step'
              when 'payload' then 'the name of a step that always comes before this one'
              else 'the name of this step or of one that always comes before it' end;
            return;
          end if;
          value := reference -> 'path';
          if jsonb_typeof(value) <> 'string' or value #>> '{}' !~ '^(?:/(?:[^~]|~[01])*)?$' then
            place := place || ': path';
            allowed := '"" or a JSON pointer like /a/0, with ~0 for ~ and ~1 for /';
            return;
          end if;
        elsif reference - '$literal' <> '{}' then
          select key into entry_key from jsonb_object_keys(reference - '$literal') key limit 1;
          place := place || ': "$literal"';
          what := 'key ' || to_json(left(entry_key, 64) || case when length(entry_key) > 64 then '…' else '' end);
          allowed := 'no other key';
          return;
        else
          select count(*) into skip from jsonb_path_query(reference -> '$literal', marked);
        end if;
      end loop;
    end loop;
  end loop;
  place := null;
end
$$;
revoke all on function pgsaga.check_order from public;
