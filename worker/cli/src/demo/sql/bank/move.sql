-- Changes the balance of account $1 by $2, which is negative for money that leaves. No row: refused
-- by a rule of the bank. What is undone ($3) asks no rule but the table's own: a compensation has
-- no way to refuse. Index: the primary key.
update account set balance = balance + $2
where id = $1 and ($3 or (not frozen and balance + $2 >= 0))
returning balance
