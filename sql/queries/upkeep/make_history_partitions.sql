-- Creates some of the history partitions that sagas need, or will need soon. `made` is 0 once there
-- is none to create.
select pgsaga.make_history_partitions() as made
