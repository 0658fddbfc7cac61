-- The newest migration that is applied. Fails with undefined_table (42P01) where pgsaga was never migrated.
select max(version) as version from pgsaga.migration where success
