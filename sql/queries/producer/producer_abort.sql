-- Rolls a saga back, by the unique index saga_gid_key; answers its status afterwards. The function
-- lies in sql/functions.
-- $1 gid, $2 reason
select pgsaga.abort($1, $2)
