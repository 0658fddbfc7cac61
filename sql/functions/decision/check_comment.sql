-- version 1: expands

-- Refuses a comment that is empty or too long, with SQLSTATE 22023.
create or replace function pgsaga.check_comment(comment text, what text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  if coalesce(trim(comment), '') = '' or octet_length(comment) > 1024 then
    raise exception using errcode = 'invalid_parameter_value',
      message = format('%s: found %s; allowed: 1 to 1,024 bytes that say why', what,
        case when coalesce(trim(comment), '') = '' then 'nothing' else octet_length(comment) || ' bytes' end);
  end if;
end
$$;
revoke all on function pgsaga.check_comment from public;
