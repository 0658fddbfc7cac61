-- version 1: expands

-- Says what is allowed in the place of an action or a compensation that is refused, and null of
-- one that is fine: a text that is empty, names a participant, or is a URL. check_saga calls it.
--
-- The grammar is that of sql/src/contract/url.rs and named_url.rs: a named participant; or http or
-- https in lower case, a host, optionally a port from 1 to 65535, optionally a path or query of
-- visible ASCII, without user, fragment or backslash. A host is one of these:
-- * names separated by single dots. The last name is no number, because URL parsers read such a
--   host as an IPv4 address and refuse most of them.
-- * a plain IPv4 address.
-- * an IPv6 address of hexadecimal groups (the last pattern, where H is a group).
--
-- No pattern has a backslash: its meaning in a literal depends on standard_conforming_strings of
-- the producer's session. `[.]` is a dot, and a set that holds `]` begins with it.
--
-- Workers add gid, trans_type, branch_id and op to the query of each call, and a participant's
-- barrier takes a call for the op that they name. A URL that had them itself could name an op of
-- another saga to a participant that reads the first of two values. That saga's own call would then
-- count as a repetition and be answered without doing its work. So the INSERT refuses them. Workers
-- also refuse them where they are written with escapes, which this function does not decode. A
-- participant's name of digits alone is refused because no worker can be given an address for it.
create or replace function pgsaga.check_url(value jsonb, out allowed text)
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  url constant text := case when jsonb_typeof(value) = 'string' then value #>> '{}' end;
  authority constant text := split_part(split_part(url, '/', 3), '?', 1);
begin
  -- control: pattern-without-backslash
  if url ~ '^[^?]*[?](?:.*[&;])?(?:gid|trans_type|branch_id|op)(?:[=&;]|$)' then
    allowed := 'a query without gid, trans_type, branch_id and op, which workers add';
  elsif octet_length(url) <= 2048 and (
    url = ''
    or url ~ '^participant:[a-z0-9][a-z0-9._-]{0,63}/[A-Za-z0-9._~:@/-]*(?:[?][A-Za-z0-9._~:@/?=&,;+-]*)?$' and strpos(url, '..') = 0
      and url !~ '^participant:[0-9]+/'
    or (url like 'https://%' or url like 'http://%') and url !~ '[^]!"$-[^-~]' and (
      authority ~ ('^(?:'
        '(?:[A-Za-z0-9_-]+[.])*(?:[A-Za-z_-]|[1-9][0-9]*[A-Za-z_-]|0[0-9]*[A-WYZa-wyz_-]|0[0-9]+[Xx])[A-Za-z0-9_-]*'
        '|(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9]))'
        '(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$')
      or authority ~ replace('^[[](?:(?:H:){7}H|(?:H:){1,7}:|(?:H:){1,6}:H|(?:H:){1,5}(?::H){1,2}|(?:H:){1,4}(?::H){1,3}'
        '|(?:H:){1,3}(?::H){1,4}|(?:H:){1,2}(?::H){1,5}|H:(?::H){1,6}|:(?:(?::H){1,7}|:))[]]'
        '(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$', 'H', '[0-9A-Fa-f]{1,4}')))
  then
    allowed := null;
  elsif url like 'participant:%' then
    allowed := 'participant:name/path?query, with a name of 1 to 64 of a-z 0-9 . _ - that starts with a letter or a digit and is not digits alone: up to 2,048 of the characters A-Z a-z 0-9 . _ ~ : @ / ? = & , ; + -, without ..';
  else
    allowed := '"", participant:name/path, or a URL like https://host:port/path?query: up to 2,048 visible ASCII characters, without user, fragment or backslash';
  end if;
end
$$;
revoke all on function pgsaga.check_url from public;
