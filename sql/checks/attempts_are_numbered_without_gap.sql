-- Tries of an op are numbered 1, 2, 3 … in the order they ended, lost ones included.
select s.gid, 'step ' || n.step || ' ' || n.op || ': try ' || n.attempt || ' stands at place ' || n.place as found
from (
  select saga_id, step, op, attempt,
    row_number() over (partition by saga_id, step, op order by seq) as place
  from pgsaga.history where kind = 'attempt'
) n
join pgsaga.saga s on s.id = n.saga_id
where n.attempt <> n.place
