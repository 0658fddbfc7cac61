-- Resumes queue $1.
select pgsaga.resume($1)
