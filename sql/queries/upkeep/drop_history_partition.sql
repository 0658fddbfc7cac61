-- Drops history partition $1, if no saga of it is left and none can come.
select pgsaga.drop_history_partition($1) as dropped
