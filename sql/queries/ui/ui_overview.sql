-- `pgsaga ui`: counts the newest $1 sagas by status, and all stuck sagas. Index: saga_pkey,
-- backwards. Reads all of pgsaga.stuck.
select count(*) as sagas,
  count(*) filter (where status = 'submitted') as submitted,
  count(*) filter (where status = 'aborting') as aborting,
  count(*) filter (where status = 'succeeded') as succeeded,
  count(*) filter (where status = 'failed') as failed,
  count(*) filter (where status = 'stuck') as stuck,
  (select count(distinct saga_id) from pgsaga.stuck) as stuck_of_all,
  clock_timestamp() as at
from (select status from pgsaga.saga order by id desc limit $1) s
