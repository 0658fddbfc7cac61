-- Bytes of full-page images between $1 and $2.
select coalesce(sum(fpi_size), 0)::bigint from public.pg_get_wal_stats($1::pg_lsn, $2::pg_lsn, false)
