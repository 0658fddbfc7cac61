-- Pauses queue $1: no worker claims its tasks.
select pgsaga.pause($1)
