-- How large the tables are, and what keeps them from being vacuumed: one row a table, each with the
-- age in seconds of the oldest transaction that is open or prepared in this database. Cheap,
-- however much is due.
select table_name, dead_rows, bytes,
  coalesce((select date_part('epoch', max(age)) from pgsaga.open_transactions), 0) as oldest_transaction
from pgsaga.table_stats
