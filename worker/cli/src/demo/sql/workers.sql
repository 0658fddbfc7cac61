-- The living workers and the tasks that each holds, the busiest first. Reads the hot tables only.
select w.id, w.pid, count(t.id) as held
from pgsaga.worker w
left join pgsaga.task t on t.worker = w.id
where not w.dead
group by w.id
order by held desc, w.id
