-- Releases both locks when the worker has work again: producers no longer pay for NOTIFY, and
-- another worker looks every second. Releases all, because a lock may have been taken twice.
select pg_advisory_unlock_all()
