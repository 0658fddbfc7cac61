-- Drops history partition $1 if none of its sagas exists any more and no new saga can get such an
-- id.
select pgsaga.drop_history_partition($1) as dropped
