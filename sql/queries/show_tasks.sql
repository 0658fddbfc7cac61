-- `pgsaga show`: what is queued for saga $1. Reads the whole hot table, which is small; a person asks for this, not a loop.
select t.step, t.op, t.attempt, t.worker, t.lost, w.host, w.pid,
  (extract(epoch from t.run_at - clock_timestamp()) * 1000)::bigint as due_ms
from pgsaga.task t left join pgsaga.worker w on w.id = t.worker
where t.saga_id = $1 order by t.id
