-- Returns one row for each table: its size, its dead rows, and the age in seconds of the oldest
-- open or prepared transaction of this database, which keeps vacuum from removing dead rows. The
-- cost does not depend on how much is due.
select table_name, dead_rows, bytes,
  coalesce((select date_part('epoch', max(age)) from pgsaga.open_transactions), 0) as oldest_transaction
from pgsaga.table_stats
