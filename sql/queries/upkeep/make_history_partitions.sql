-- Creates the history partitions that the next sagas will need.
select pgsaga.make_history_partitions() as made
