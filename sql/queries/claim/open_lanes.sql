-- Makes lanes for the participants $1, in each class of each queue that has none for them. The
-- worker has claimed tasks of theirs, and serves none of them: in a lane of their own they cost its
-- claims nothing.
--
-- Waits for nobody. Two workers that do this at the same time make a lane each; both stay, and
-- belong to the class alike.
insert into pgsaga.lane (queue, priority, participant)
select l.queue, l.priority, n.participant
from (select distinct queue, priority from pgsaga.lane where participant = '') l
cross join unnest($1::text[]) as n (participant)
where not exists (
  select from pgsaga.lane o where o.participant = n.participant and o.queue = l.queue and o.priority = l.priority
)
