-- The status of saga $1, and its reason.
select status, reason from pgsaga.saga where gid = $1
