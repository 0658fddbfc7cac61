-- Removes the row of the dead worker $1 once no task is claimed under its id. Reads the whole table
-- of tasks, not only due tasks: after the clock stepped back, claimed rows lie in the future
-- (docs/races.md, R11).
delete from pgsaga.worker w
-- control: bury-holds-nothing
where w.id = $1 and w.dead and not exists (select from pgsaga.task where worker = $1)
