-- Opens accounts 1 to $1 with a balance of $2; every $3rd is frozen.
insert into account (id, balance, frozen)
select id, $2, id % $3 = 0 from generate_series(1, $1) as id
on conflict (id) do nothing
