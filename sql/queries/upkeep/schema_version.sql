-- Returns the applied versions of the schema, ascending. Fails with undefined_table (42P01) if
-- pgsaga was never migrated. `released` is false in a table that an unreleased pgsaga (0.1 to 0.4)
-- made.
select m.version, to_jsonb(m) ? 'digest' as released, to_jsonb(m) ->> 'digest' as digest, current_setting('server_encoding') as encoding
from pgsaga.migration m order by m.version
