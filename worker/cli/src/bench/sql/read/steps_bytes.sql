-- What the steps of one saga take, on average of a thousand.
select coalesce(avg(pg_column_size(steps)), 0)::float8 from (select steps from pgsaga.saga limit 1000) s
