-- A worker's own farewell: whatever it still holds (calls cut off by the end of the grace) is
-- rescued at once by the others, without waiting for a lease, and does not count as a death. FOR
-- UPDATE, like declare_dead: it waits for the worker's own open claims and settles, so that none
-- commits after the rescue (docs/races.md, R12).
update pgsaga.worker w set dead = true, retired = true
-- control: retire-lock
where w.id = (select id from pgsaga.worker where id = $1 for update)
returning w.id
