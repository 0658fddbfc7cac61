-- Buffers and calls of claims in this database so far; the statement begins with the words of its
-- file.
select coalesce(sum(shared_blks_hit + shared_blks_read), 0)::bigint as buffers, coalesce(sum(calls), 0)::bigint as calls
from public.pg_stat_statements
where query like '-- Claims up to%' and dbid = (select oid from pg_database where datname = current_database())
