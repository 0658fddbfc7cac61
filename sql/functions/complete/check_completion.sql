-- version 1: expands

-- Refuses what no completion may say, with SQLSTATE 22023.
create or replace function pgsaga.check_completion(outcome text, answer jsonb, comment text, op text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  place text;
  what text;
  allowed text;
begin
  if outcome is null or outcome not in ('success', 'failure', 'ongoing') then
    place := 'outcome';
    what := coalesce(to_json(left(outcome, 64))::text, 'nothing');
    allowed := 'success, failure or ongoing';
  elsif op not in ('action', 'compensate') then
    place := 'op';
    what := to_json(left(op, 64));
    allowed := 'action or compensate';
  elsif answer is not null and (outcome <> 'success' or op = 'compensate') then
    place := 'answer';
    what := jsonb_typeof(answer);
    allowed := 'none, except with the success of an action';
  elsif octet_length(answer::text) > 1048576 then
    place := 'answer';
    what := octet_length(answer::text) || ' bytes';
    allowed := 'up to 1,048,576 bytes as Postgres prints the JSON';
  elsif jsonb_path_exists(answer, 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")') then
    place := 'answer';
    what := 'more than 64 levels';
    allowed := 'arrays and objects nested up to 64 deep';
  end if;
  if place is not null then
    raise exception using errcode = 'invalid_parameter_value', message = format('%s: found %s; allowed: %s', place, what, allowed);
  end if;
  if comment is not null or outcome = 'failure' then
    perform pgsaga.check_comment(comment, 'comment');
  end if;
end
$$;
revoke all on function pgsaga.check_completion from public;
