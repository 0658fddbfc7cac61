-- Finished sagas from before the run.
select count(*) from pgsaga.saga where gid like 'old-%'
