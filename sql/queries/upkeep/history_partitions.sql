-- Returns the partitions of the history, in the order of their saga ids. Partition n starts at saga
-- id n × 1,000,000.
select substring(c.relname from '[0-9]+$')::bigint as part
from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'pgsaga.history'::regclass
order by part
