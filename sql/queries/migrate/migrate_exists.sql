-- Whether pgsaga was ever migrated in this database. Never fails, so it can run inside a
-- transaction.
select to_regclass('pgsaga.migration') is not null as migrated
