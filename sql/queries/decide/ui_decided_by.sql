-- `pgsaga ui`: names the person $1 as the decider of this transaction's decisions.
select set_config('pgsaga.decided_by', $1, true)
