-- Keeps history partitions ready ahead of the newest saga.
select pgsaga.make_history_partitions() as made
