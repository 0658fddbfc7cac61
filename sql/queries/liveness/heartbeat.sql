-- Raises worker $1's counter and shows all counters, in one statement: workers watch each other.
-- Need not survive a crash, so it does not wait for the disk. `alive` is false when this worker was
-- declared dead meanwhile. `server` says which server this is: on another one than the worker
-- knows, it must look first whether its memory is of this history. `pgsaga show` reads $3, the
-- participants that this worker may not call and why; null = none. Also whether a release newer
-- than schema version $2 has migrated the database under this worker: `newer` is the newest version
-- that does not promise that this worker may go on, `expanded` the newest that does
-- (sql/src/schema.rs). A handful of rows.
with quick as materialized (
  select set_config('synchronous_commit', 'off', true) as off
), beaten as (
  update pgsaga.worker w set beat = w.beat + 1, seen_at = clock_timestamp(), denied = $3::jsonb
  from quick where w.id = $1 and not w.dead and quick.off is not null
  returning w.id
), migrated as materialized (
  select max(version) filter (where not starts_with(name, 'expand_')) as newer,
    max(version) filter (where starts_with(name, 'expand_')) as expanded
  from pgsaga.migration where version > $2
)
-- control: death-by-counter
select w.id, w.beat, w.lease_ms, w.dead, exists (select from beaten) as alive, m.newer, m.expanded,
  pg_postmaster_start_time() as server, clock_timestamp() as now
from pgsaga.worker w cross join migrated m order by w.id
