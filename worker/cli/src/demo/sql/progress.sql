-- How far it is. Reads all sagas.
select count(*) as submitted,
  count(*) filter (where status = 'succeeded') as succeeded,
  count(*) filter (where status = 'failed') as failed,
  count(*) filter (where status = 'stuck') as stuck
from pgsaga.saga
