-- {sagas} sagas that finished a day ago, with their history, as workers would have left them. Needs
-- a superuser: an INSERT may give no other status than `submitted`, and would queue them.
set session_replication_role = replica;
insert into pgsaga.saga (gid, steps, status, created_at, finished_at)
select 'old-' || lpad(n::text, 10, '0'),
  '[{"name": "step-1", "action": "http://127.0.0.1:8080/ok/1"}, {"name": "step-2", "action": "http://127.0.0.1:8080/end/2"}]'::jsonb,
  'succeeded', clock_timestamp() - interval '25 hours', clock_timestamp() - interval '24 hours'
from generate_series(1, {sagas}::bigint) n;
select pgsaga.make_history_partitions() from generate_series(0, {sagas}::bigint / 10000000);
insert into pgsaga.history (saga_id, step, op, attempt, outcome, status_code, duration_us, at, worker, kind)
select s.id, n, 'action', 1, 'success', 200, 1000, s.finished_at, 1, 'attempt'
from pgsaga.saga s cross join generate_series(1, 2) n;
reset session_replication_role
