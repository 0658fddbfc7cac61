-- Returns the partitions of the history that hold rows, ascending, in a snapshot that this
-- transaction has had since before. A partition without a page holds none. `pgsaga doctor` reads no
-- other partition: planning its queries for thousands of partitions would take minutes. Where there
-- is no history, each check says so.
select substring(c.relname from '[0-9]+$')::bigint as part
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = to_regclass('pgsaga.history') and pg_relation_size(c.oid) > 0
order by part
