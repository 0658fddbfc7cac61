-- Raises the counter of worker $1 and returns the counters of all workers, because workers watch
-- each other. The statement does not wait for the disk: a lost counter does no harm.
--   $1 worker
--   $2 schema version that this worker knows
--   $3 participants that this worker may not call, and why, for `pgsaga show`; null = none
--   $4 environment that this worker works for; null = none
--   $5 what its running handlers have reported, by task; null = nothing
-- `alive` is false if this worker was declared dead. `server` identifies the server. If a worker
-- does not know that server, it must first find out whether its memory belongs to this history.
-- `newer` is the newest applied version after $2 that does not promise to let this worker continue,
-- and `expanded` the newest one that does (sql/src/schema.rs). `misfit` says why this worker may no
-- longer work in this database. Reads a handful of rows.
with quick as materialized (
  select set_config('synchronous_commit', 'off', true) as off
), beaten as (
  update pgsaga.worker w set beat = w.beat + 1, seen_at = clock_timestamp(), denied = $3::jsonb, progress = $5::jsonb
  from quick where w.id = $1 and not w.dead and quick.off is not null
  returning w.id
), migrated as materialized (
  select max(version) filter (where not starts_with(name, 'expand_')) as newer,
    max(version) filter (where starts_with(name, 'expand_')) as expanded
  from pgsaga.migration where version > $2
), home as materialized (
  select misfit from pgsaga.check_home($4)
)
-- control: death-by-counter
select w.id, w.beat, w.lease_ms, w.dead, exists (select from beaten) as alive, m.newer, m.expanded, home.misfit,
  pg_postmaster_start_time() as server, clock_timestamp() as now
from pgsaga.worker w cross join migrated m cross join home order by w.id
