-- What happened, once all is over. Reads every table.
with saga as (
  select count(*) as sagas,
    count(*) filter (where status = 'succeeded') as succeeded,
    count(*) filter (where status = 'failed') as failed,
    count(*) filter (where status = 'stuck') as stuck,
    count(*) filter (where finished_at is null and status <> 'stuck') as unfinished,
    count(*) filter (where gid like 'rolled-back-%') as rolled_back,
    percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from finished_at - created_at)::float8) as took,
    extract(epoch from max(finished_at) - min(created_at))::float8 as seconds
  from pgsaga.saga
), history as (
  select count(*) filter (where attempt > 1) as retried,
    count(*) filter (where outcome = 'unknown' and status_code is null and duration_us is null) as rescued,
    count(*) filter (where op = 'compensate' and outcome = 'success') as compensations
  from pgsaga.history where kind = 'attempt'
), moved as (
  -- What the succeeded sagas, and no others, ought to have done to each account.
  select bank, account, sum(change) as change
  from (
    select from_bank as bank, from_account as account, -amount as change
    from demo.transfer_order o join pgsaga.saga s using (gid) where s.status = 'succeeded'
    union all
    select to_bank, to_account, amount
    from demo.transfer_order o join pgsaga.saga s using (gid) where s.status = 'succeeded'
  ) m
  group by bank, account
), account as (
  select 'bank_a' as bank, id, balance from bank_a.account
  union all
  select 'bank_b', id, balance from bank_b.account
)
select saga.sagas, saga.succeeded, saga.failed, saga.stuck, saga.unfinished,
  history.retried, history.rescued, history.compensations,
  round(coalesce(saga.took[1] * 1000, 0)::numeric, 1)::float8 as p50_ms,
  round(coalesce(saga.took[2] * 1000, 0)::numeric, 1)::float8 as p99_ms,
  round(coalesce(saga.sagas / nullif(saga.seconds, 0), 0)::numeric, 1)::float8 as per_second,
  -- Stronger than the sum: money that moved twice, or to the wrong account, leaves the sum as it
  -- was.
  (select count(*) from account a left join moved m on m.bank = a.bank and m.account = a.id
   where a.balance <> $1 + coalesce(m.change, 0)) as wrong_accounts,
  -- What was rolled back must not exist, nor have called anybody; what was committed has its saga.
  saga.rolled_back + (select count(*) from dtm_barrier.barrier where gid like 'rolled-back-%') as ghosts,
  (select count(*) from demo.transfer_order o full join pgsaga.saga s using (gid) where o.gid is null or s.gid is null) as torn,
  -- One worth a look: the most eventful.
  (select s.gid from pgsaga.history h join pgsaga.saga s on s.id = h.saga_id
   group by s.gid order by bool_or(h.op = 'compensate') desc, count(*) desc, s.gid limit 1) as gid
from saga, history
