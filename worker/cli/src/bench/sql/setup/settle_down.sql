-- One statement after the other: VACUUM runs in no transaction.
vacuum analyze pgsaga.saga;
vacuum analyze pgsaga.task;
vacuum analyze pgsaga.history
