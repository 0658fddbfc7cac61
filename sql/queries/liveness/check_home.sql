-- Says why a worker may not work in this database, before it writes anything; null = it may.
--   $1 environment that the worker works for; null = none
select misfit from pgsaga.check_home($1)
