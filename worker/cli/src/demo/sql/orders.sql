-- The business rows of one or many transfers. $1 is a JSON array with an object for each.
insert into demo.transfer_order (gid, from_bank, from_account, to_bank, to_account, amount)
select gid, from_bank, from_account, to_bank, to_account, amount
from jsonb_to_recordset($1::jsonb) as t (
  gid text, from_bank text, from_account int, to_bank text, to_account int, amount bigint
)
