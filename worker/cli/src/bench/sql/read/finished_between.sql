-- Sagas that reached their final state between two moments of the database's clock, in
-- microseconds. The statement that commits the state sets the time.
select count(*) from pgsaga.saga
where finished_at >= to_timestamp($1::bigint / 1e6) and finished_at < to_timestamp($2::bigint / 1e6)
