-- Holds a snapshot until the session ends: nothing that dies from here on can be vacuumed.
begin isolation level repeatable read; select count(*) from pgsaga.worker
