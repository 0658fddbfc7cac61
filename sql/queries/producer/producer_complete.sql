-- Reports how op $6 of step $2 of saga $1 ended: outcome $3, answer $4, comment $5. Returns the
-- saga's status afterwards. The function is in sql/functions. Index: saga_gid_key.
select pgsaga.complete($1, $2, $3, $4::jsonb, $5, $6)
