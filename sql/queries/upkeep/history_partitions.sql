-- The history's partitions, in the order of their sagas: partition n has those from id n ×
-- 1,000,000 on.
select substring(c.relname from '[0-9]+$')::bigint as part
from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'pgsaga.history'::regclass
order by part
