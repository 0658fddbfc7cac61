-- Notifies idle workers that a task is due which this worker leaves to them. $1 is the named
-- participant that the task calls: workers that do not serve it stay idle. Empty: any worker.
select pg_notify('pgsaga', $1)
