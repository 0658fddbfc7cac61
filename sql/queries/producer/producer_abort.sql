-- Turns a saga back, by the unique index saga_gid_key; answers its status afterwards. The function is migration 5's.
-- $1 gid, $2 reason
select pgsaga.abort($1, $2)
