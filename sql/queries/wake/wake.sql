-- Wakes idle workers: something is due that this worker left to them.
select pg_notify('pgsaga', '')
