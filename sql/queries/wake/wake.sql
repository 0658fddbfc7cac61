-- Notifies idle workers that a task is due which this worker leaves to them.
select pg_notify('pgsaga', '')
