-- Queue $1 goes on.
select pgsaga.resume($1)
