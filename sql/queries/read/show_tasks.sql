-- `pgsaga show`: returns the tasks of saga $1, the earliest first; a step has at most one task. No
-- column holds the time of a claim. A task was claimed after it became due and, in a sequential
-- saga, after the last event. Indexes: task_saga, worker_pkey.
select t.step, t.op, t.attempt, t.counted, t.worker, t.format, t.lost, t.interrupt, t.completion, t.wait_ends_at, t.participant, w.host, w.pid, t.run_at,
  greatest(least((date_part('epoch', clock_timestamp()) - date_part('epoch', w.seen_at)) * 1e6, 9e18), -9e18)::bigint as seen_us,
  case when t.wait_ends_at is null then 0 else greatest(least((date_part('epoch', t.wait_ends_at) - date_part('epoch', clock_timestamp())) * 1e3, 9e18), 0) end::bigint as wait_left_ms,
  greatest(least((date_part('epoch', t.run_at) - date_part('epoch', clock_timestamp())) * 1e3, 9e18), -9e18)::bigint as due_ms,
  greatest(least((date_part('epoch', clock_timestamp()) - date_part('epoch', case
    when s.progress is null then greatest(t.run_at, (select at from pgsaga.history where saga_id = $1 order by seq desc limit 1))
    else t.run_at end)) * 1e6, 9e18), -9e18)::bigint as held_us_max,
  left(w.progress ->> t.id::text, 200) as progress,
  d.workers as denied_by, d.why as denied,
  t.participant like 'participant:%' and not exists (select from pgsaga.worker w where not w.dead and t.participant = any (w.participants)) as unserved
from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id left join pgsaga.worker w on w.id = t.worker
cross join lateral (
  select count(*) as workers, min(denied ->> t.participant) as why from pgsaga.worker where not dead and denied ? t.participant
) d
where t.saga_id = $1
order by t.run_at, t.id
