-- The history's partitions, in the order of their sagas, without those that are made ahead. Partition n has the sagas from
-- n × 1,000,000 on.
select p.part
from (
  select substring(c.relname from '[0-9]+$')::bigint as part
  from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'pgsaga.history'::regclass
) p
where p.part <= coalesce((select max(id) from pgsaga.saga), 9223372036854775807) / 1000000
order by p.part
