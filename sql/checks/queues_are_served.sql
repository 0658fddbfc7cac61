-- A living worker serves each queue that has work, unless the queue is paused, and each named
-- participant that due tasks call. Tolerates a minute, in which a worker is replaced, and a
-- database without any living worker.
select null::text as gid,
  format('queue %s: due tasks: %s, the first for %s s; none of %s living workers serves it: start one with --queue %s, or without --queue',
         q.queue, q.due, round(extract(epoch from q.oldest_due_age)), a.workers, q.queue) as found
from (
  select queue, sum(due) as due, max(oldest_due_age) as oldest_due_age
  from pgsaga.queues where workers = 0 and paused_at is null group by queue
) q
cross join (select count(*) as workers from pgsaga.worker_stats where alive) a
where a.workers > 0 and q.oldest_due_age > interval '1 minute'
union all
select null, format('%s: due tasks: %s, the first for %s s; none of %s living workers has this participant: name it in the file of --participants',
                    p.participant, p.due, round(extract(epoch from p.oldest_due_age)), a.workers)
from (
  select l.participant, count(*) as due, clock_timestamp() - greatest(min(t.run_at), 'epoch') as oldest_due_age
  from pgsaga.lane l join pgsaga.task t on t.lane = l.id and t.worker is null and t.run_at <= clock_timestamp()
  left join pgsaga.paused_queue q on q.name = l.queue
  where l.participant > '' and q.name is null
    and not exists (select from pgsaga.worker w join pgsaga.worker_stats s using (id) where s.alive and l.participant = any (w.participants))
  group by l.participant
) p
cross join (select count(*) as workers from pgsaga.worker_stats where alive) a
where a.workers > 0 and p.oldest_due_age > interval '1 minute'
