-- The worker has work again: producers stop paying for NOTIFY, and somebody else looks. A lock may
-- have been taken twice.
select pg_advisory_unlock_all()
