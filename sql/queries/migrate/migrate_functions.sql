-- Returns the functions that `pgsaga migrate` has applied, with the digests of their files.
select name, digest from pgsaga.function
