-- Rolls saga $1 back for the reason $2, and returns its status afterwards. The function is in
-- sql/functions. Index: saga_gid_key.
select pgsaga.abort($1, $2)
