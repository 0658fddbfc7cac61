-- Whether the row of worker $1 is gone: its tasks are queued again.
select not exists (select from pgsaga.worker where id = $1) as gone
