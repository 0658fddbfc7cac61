-- The business rows of one or many transfers.
-- $1 gids, $2 from_banks, $3 from_accounts, $4 to_banks, $5 to_accounts, $6 amounts
insert into demo.transfer_order (gid, from_bank, from_account, to_bank, to_account, amount)
select * from unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::int[], $6::bigint[])
