-- Whether to do the work of this call, by the function of barrier.sql.
-- $1 trans_type, $2 gid, $3 branch_id, $4 op, $5 barrier_id
select dtm_barrier.enter($1, $2, $3, $4, $5)
