-- Inserts $2 due sagas with the steps $1.
insert into pgsaga.saga (gid, steps)
select 'bench-' || lpad((n - 1)::text, 10, '0'), $1::text::jsonb from generate_series(1, $2::bigint) n
