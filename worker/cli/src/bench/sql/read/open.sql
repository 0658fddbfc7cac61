-- Sagas that have not succeeded, once the last settles have committed: their tasks are gone with
-- them.
select count(*) from pgsaga.saga where status <> 'succeeded'
