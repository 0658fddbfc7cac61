-- A new worker: $1 lease in milliseconds, $2 host, $3 process id, $4 version.
insert into pgsaga.worker (lease_ms, host, pid, version) values ($1, $2, $3, $4) returning id
