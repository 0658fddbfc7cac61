-- Declares worker $1 dead if its counter still is $2. FOR UPDATE conflicts with the FOR KEY SHARE
-- of its claims and settles: while one of them is open the row is skipped and looked at again with
-- the next heartbeat. Once this has committed, no statement of that worker can create a claimed
-- row.
update pgsaga.worker w set dead = true
-- control: declare-dead-lock
where w.id = (select id from pgsaga.worker where id = $1 and beat = $2 and not dead for update skip locked)
returning w.id
