-- Whether pgsaga was ever migrated in this database, and the encoding of the database. Never fails,
-- so it can run inside a transaction.
select to_regclass('pgsaga.migration') is not null as migrated, current_setting('server_encoding') as encoding
