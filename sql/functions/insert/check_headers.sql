-- version 1: expands

-- Checks the headers of a saga or of a step: an object of strings that HTTP can transmit, without
-- those that pgsaga or the transport sets. `place` is null where there is no error. check_saga
-- calls it only where there are headers.
create or replace function pgsaga.check_headers(
  headers jsonb, out place text, out what text, out value jsonb, out allowed text   -- the error, for check_saga
) language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  entry_count int;
  entry_key text;
  fault text;
begin
  if jsonb_typeof(headers) <> 'object' then
    place := 'headers';
    value := headers;
    allowed := 'an object of strings';
    return;
  end if;
  select count(*), (array_agg(h.key) filter (where h.fault is not null))[1], (array_agg(h.fault) filter (where h.fault is not null))[1]
    into entry_count, entry_key, fault
    from (select e.key, case
        when e.key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' or length(e.key) > 128 then 'name'
        -- control: header-collation
        when lower(e.key collate "C") in ('host', 'content-length', 'content-type', 'content-encoding', 'accept-encoding',
          'connection', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'keep-alive', 'expect', 'proxy-authorization', 'proxy-connection',
          'idempotency-key', 'saga-attempt', 'saga-timeout-ms', 'saga-action-key', 'webhook-id', 'webhook-timestamp', 'webhook-signature')
        then 'reserved'
        when jsonb_typeof(e.value) <> 'string' or e.value #>> '{}' !~ E'^[\\t -~]*$' or length(e.value #>> '{}') > 4096 then 'value'
      end as fault from jsonb_each(headers) e) h;
  if entry_count > 64 then
    place := 'headers';
    what := entry_count || ' entries';
    allowed := 'up to 64';
    return;
  end if;
  if entry_key is null then
    return;
  end if;
  place := 'headers ' || to_json(left(entry_key, 64) || case when length(entry_key) > 64 then '…' else '' end);
  if fault = 'name' then
    what := 'a bad name';
    allowed := '1 to 128 of the characters A-Z a-z 0-9 ! # $ % & '' * + - . ^ _ ` | ~';
  elsif fault = 'reserved' then
    what := 'a header that pgsaga or the transport sets';
    allowed := 'any other';
  else
    value := headers -> entry_key;
    allowed := 'a string of up to 4,096 visible ASCII characters, spaces and tabs';
  end if;
end
$$;
revoke all on function pgsaga.check_headers from public;
