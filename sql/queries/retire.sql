-- A worker's own farewell: whatever it still holds (calls cut off by the end of the grace) is rescued at once by the
-- others, without waiting for a lease.
update pgsaga.worker set dead = true where id = $1
