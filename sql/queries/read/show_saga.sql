-- `pgsaga show`: returns the saga $1. If not $2, leaves out its steps and cuts long JSON to the
-- length of a line. `workers` counts the workers that sent a heartbeat within their lease,
-- `serving` those of them that serve the queue. `last_seq` is the end of the saga's history in this
-- snapshot. Times may be infinite and intervals as long as Postgres allows, so differences are
-- computed with numbers and end at 9e18. Indexes: saga_gid_key, paused_queue_pkey, and the primary
-- key of one partition of the history.
select s.id, s.gid, s.status, s.reason, s.format, s.queue, s.priority, s.created_at, s.run_at, s.deadline, s.finished_at,
  greatest(least(date_part('epoch', s.retry_interval), 9e12), -9e12) as retry_interval_seconds, s.retry_limit, s.compensate_retry_limit, s.compensate_failed, greatest(least(date_part('epoch', s.request_timeout), 9e12), -9e12) as request_timeout_seconds,
  greatest(least(date_part('epoch', s.timeout_to_fail), 9e12), -9e12) as timeout_to_fail_seconds, s.abort_reason, s.ending, s.version, s.progress,
  s.fresh_keys::text as fresh_keys, case when $2 then s.steps::text end as steps,
  case when $2 then s.headers::text else left(s.headers::text, 500) end as headers,
  case when $2 then s.result_mapping::text else left(s.result_mapping::text, 500) end as result_mapping,
  case when $2 then s.labels::text else left(s.labels::text, 500) end as labels,
  case when $2 then s.result::text else left(s.result::text, 500) end as result,
  greatest(least((date_part('epoch', s.deadline) - date_part('epoch', clock_timestamp())) * 1e6, 9e18), -9e18)::bigint as deadline_us,
  q.paused_at, q.paused_by,
  (select count(*) from pgsaga.worker
   where not dead and seen_at > clock_timestamp() - lease_ms * interval '1 millisecond') as workers,
  (select count(*) from pgsaga.worker w
   where not w.dead and w.seen_at > clock_timestamp() - w.lease_ms * interval '1 millisecond'
     and (w.queues is null or s.queue = any (w.queues))) as serving,
  (select max(seq) from pgsaga.history where saga_id = s.id) as last_seq
from pgsaga.saga s left join pgsaga.paused_queue q on q.name = s.queue
where s.gid = $1
