-- Returns the process that serves this transaction. Behind a pooler it may change.
select pg_backend_pid() as process
