-- Ends a worker that shuts down. Other workers rescue the tasks that it still holds, whose calls
-- the end of the grace period cut off, at once instead of after a lease, and count no death. FOR
-- UPDATE, as in declare_dead, waits for the worker's own open claims and settles, so that none of
-- them commits after the rescue (docs/races.md, R12).
update pgsaga.worker w set dead = true, retired = true
-- control: retire-lock
where w.id = (select id from pgsaga.worker where id = $1 for update)
returning w.id
