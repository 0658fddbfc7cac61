-- Counts the buffers of statements; the library has to be preloaded.
create extension if not exists pg_stat_statements schema public
