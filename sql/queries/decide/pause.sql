-- Nothing of queue $1 is claimed any more.
select pgsaga.pause($1)
