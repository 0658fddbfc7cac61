-- The sum of all balances.
select (select sum(balance) from bank_a.account)::bigint + (select sum(balance) from bank_b.account)::bigint as money
