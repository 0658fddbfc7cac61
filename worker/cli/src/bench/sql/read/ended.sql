-- Sagas of this run that have ended, and those of them that came to the end that they should have
-- ($1).
select count(*) as ended, count(*) filter (where status = $1) as as_expected from pgsaga.saga
where finished_at is not null and gid like 'bench-%'
