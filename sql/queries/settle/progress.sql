-- Returns the progress of the parallel sagas $1, from which a settle is planned. Index: saga_pkey.
select s.id, s.version, s.progress, s.abort_reason is not null as requested
from unnest($1::bigint[]) as i (saga_id)
-- control: progress-loop
cross join lateral (select id, version, progress, abort_reason from pgsaga.saga where id = i.saga_id offset 0) s
