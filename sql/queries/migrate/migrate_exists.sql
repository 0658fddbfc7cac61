-- Whether pgsaga was ever migrated here. Fails never, so it can be asked inside a transaction.
select to_regclass('pgsaga.migration') is not null as migrated
