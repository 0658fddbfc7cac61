-- Removes the row of the dead worker $1 once nothing is claimed under its id.
delete from pgsaga.worker w
where w.id = $1 and w.dead
  and not exists (select from pgsaga.task where run_at <= (select clock_timestamp()) and worker = $1)
