-- Before the result is counted: autovacuum has had no time to look at tables that are seconds old,
-- and on empty statistics some of doctor's checks take half a minute with 20,000 sagas.
analyze pgsaga.saga, pgsaga.history, pgsaga.task, demo.transfer_order, dtm_barrier.barrier
