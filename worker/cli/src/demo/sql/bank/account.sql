-- Why account $1 was refused. Index: the primary key.
select balance, frozen from account where id = $1
