-- `pgsaga ui`: the decisions of this transaction are of the person $1.
select set_config('pgsaga.decided_by', $1, true)
