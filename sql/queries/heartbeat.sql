-- Raises worker $1's counter and shows all counters, in one statement: workers watch each other. Need not survive a
-- crash, so it does not wait for the disk. `alive` is false when this worker was declared dead meanwhile.
with quick as materialized (
  select set_config('synchronous_commit', 'off', true) as off
), beaten as (
  update pgsaga.worker w set beat = w.beat + 1, seen_at = clock_timestamp()
  from quick where w.id = $1 and not w.dead and quick.off is not null
  returning w.id
)
select w.id, w.beat, w.lease_ms, w.dead, exists (select from beaten) as alive from pgsaga.worker w order by w.id
