-- The workers that nobody has declared dead, with their counters.
select id, beat from pgsaga.worker where not dead
