-- A saga that a person aborted does not succeed, unless its pivot, which was running, did, or a
-- person ended it.
select s.gid, 'succeeded, and was aborted (seq ' || h.seq || ')' as found
from pgsaga.history h join pgsaga.saga s on s.id = h.saga_id
where h.decision = 'abort' and s.status = 'succeeded' and not s.steps @> '[{"pivot": true}]'
  and not exists (select from pgsaga.history r where r.saga_id = s.id and r.decision = 'resolve')
