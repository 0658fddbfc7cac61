-- Why living workers call participants not.
select string_agg(distinct d.key || ': ' || (d.value #>> '{}'), E'\n  ')
from pgsaga.worker w cross join lateral jsonb_each(coalesce(w.denied, '{}')) d
where not w.dead
