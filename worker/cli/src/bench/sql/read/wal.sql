-- Bytes of WAL between $1 and $2.
select ($2::pg_lsn - $1::pg_lsn)::bigint
