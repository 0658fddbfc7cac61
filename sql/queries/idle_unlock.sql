-- The worker has work again: producers stop paying for NOTIFY.
select pg_advisory_unlock(8101820131131281) as unlocked
