-- Declares worker $1 dead if its counter still is $2. FOR UPDATE conflicts with the FOR KEY SHARE
-- of the worker's claims and settles. While one of those is open, the row is skipped, and the next
-- heartbeat tries again. Once this statement has committed, no statement of that worker can create
-- a claimed row.
update pgsaga.worker w set dead = true
-- control: declare-dead-lock
where w.id = (select id from pgsaga.worker where id = $1 and beat = $2 and not dead for update skip locked)
returning w.id
