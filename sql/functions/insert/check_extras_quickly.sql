-- version 1: expands

-- For check_quickly: whether labels and headers are valid for sure. `outline` has the headers of
-- the steps. Short texts hold neither too many entries nor too long ones.
create or replace function pgsaga.check_extras_quickly(labels jsonb, headers jsonb, outline text) returns boolean
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  all_headers constant text := concat(headers::text, outline);
begin
  return (labels is null or octet_length(labels::text) <= 256 and labels::text !~ '[^"]{65}'
      and labels::text ~ '^[{](?:"[A-Za-z0-9._:/-]+": "[]!#-Z^-~ [-]*"(?:, )?)*[}]$')
    and (headers is null or headers::text ~ '^[{](?:"[A-Za-z0-9._-]+": "[]!#-Z^-~ [-]*"(?:, )?)*[}]$')
    and octet_length(all_headers) <= 4096 and octet_length(all_headers) - octet_length(replace(all_headers, '": "', '')) <= 256
    -- Names that workers or HTTP set, in any case, and names that are too long.
    -- control: quick-headers
    and lower(all_headers collate "C") !~ ('"(?:host|content-length|content-type|content-encoding|accept-encoding|connection'
      '|transfer-encoding|te|trailer|upgrade|keep-alive|expect|proxy-authorization|proxy-connection|idempotency-key'
      '|saga-attempt|saga-timeout-ms|saga-action-key|webhook-id|webhook-timestamp|webhook-signature)": |[a-z0-9._-]{129}');
end
$$;
revoke all on function pgsaga.check_extras_quickly from public;
