-- The next value of every sequence is above all that its tables hold. Logical replication copies no
-- sequence, and a sequence that is behind gives a number twice. No row of a table is at fault, so
-- gid is null. pgsaga.worker_id_seq is left out because ids of workers are random.
select null::text as gid,
  'pgsaga.' || s.name || ': found ' || s.next || ' as its next value, and ' || h.highest || ' in pgsaga.' || h.place
  || '; allowed: a next value above ' || h.highest || '. Stop producers and workers, then run: select setval(''pgsaga.' || s.name || ''', '
  || h.highest || ')' as found
from (
  -- Before its first nextval() a sequence gives last_value itself.
  -- control: sequence-is-called
  select 'saga_id_seq' as name, last_value::numeric + is_called::int as next from pgsaga.saga_id_seq
  union all select 'task_id_seq', last_value + is_called::int from pgsaga.task_id_seq
  union all select 'lane_id_seq', last_value + is_called::int from pgsaga.lane_id_seq
  union all select 'history_seq', last_value + is_called::int from pgsaga.history_seq
) s
cross join lateral (
  -- The table that holds the most: its number mends the sequence for all of them.
  select place, highest
  from (
    select 'saga_id_seq' as name, 'saga.id' as place, (select max(id) from pgsaga.saga) as highest
    union all select 'saga_id_seq', 'history.saga_id', (select max(saga_id) from pgsaga.history)
    union all select 'saga_id_seq', 'task.saga_id', (select max(saga_id) from pgsaga.task)
    union all select 'saga_id_seq', 'stuck.saga_id', (select max(saga_id) from pgsaga.stuck)
    union all select 'task_id_seq', 'task.id', (select max(id) from pgsaga.task)
    union all select 'lane_id_seq', 'lane.id', (select max(id) from pgsaga.lane)
    union all select 'history_seq', 'history.seq', (select max(seq) from pgsaga.history)
  ) e
  where e.name = s.name and e.highest is not null
  order by e.highest desc limit 1
) h
where h.highest >= s.next
