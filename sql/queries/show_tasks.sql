-- `pgsaga show`: what is queued for saga $1, the earliest first; at most one task a step. When a task was claimed is written
-- nowhere: it was after it became due and, in a sequential saga, after the last event. Indexes: task_saga, worker_pkey.
select t.step, t.op, t.attempt, t.counted, t.worker, t.format, t.lost, t.interrupt, t.participant, w.host, w.pid, t.run_at,
  (extract(epoch from clock_timestamp() - w.seen_at) * 1000000)::bigint as seen_us,
  (extract(epoch from t.run_at - clock_timestamp()) * 1000)::bigint as due_ms,
  (extract(epoch from clock_timestamp() - case
    when s.progress is null then greatest(t.run_at, (select at from pgsaga.history where saga_id = $1 order by seq desc limit 1))
    else t.run_at end) * 1000000)::bigint as held_us_max
from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id left join pgsaga.worker w on w.id = t.worker
where t.saga_id = $1
order by t.run_at, t.id
