-- Every value of an open saga's rows is one that workers can read and reckon with; any other value
-- makes the saga stuck until a person corrects the row. What is compared as text is compared only
-- where it is text, so nothing a row holds ends this check.
with open as materialized (
  select s.*, case when jsonb_typeof(s.steps) = 'array' then jsonb_array_length(s.steps) end as step_count
  from pgsaga.saga s where s.finished_at is null
), place as (
  select s.gid, null::text as row, v.name, v.found, v.allowed
  from open s
  cross join lateral (values
    ('created_at', s.created_at::text, s.created_at >= 'epoch' and s.created_at < '10000-01-01 00:00:00+00', 'from 1970 to 9999'),
    ('run_at', s.run_at::text, isfinite(s.run_at) and s.run_at < '10000-01-01 00:00:00+00', 'nothing, or up to 9999'),
    ('deadline', s.deadline::text, s.deadline >= 'epoch' and s.deadline < '11000-01-01 00:00:00+00', 'nothing, or from 1970 to 10999'),
    ('retry_interval', s.retry_interval::text, date_part('epoch', s.retry_interval) between 0.001 and 86400, 'from 0.001 to 86,400 seconds'),
    ('request_timeout', s.request_timeout::text, date_part('epoch', s.request_timeout) between 0.001 and 86400, 'from 0.001 to 86,400 seconds'),
    ('timeout_to_fail', s.timeout_to_fail::text, date_part('epoch', s.timeout_to_fail) between 0.001 and 31536000,
      'nothing, or from 0.001 to 31,536,000 seconds'),
    ('retry_limit', s.retry_limit::text, s.retry_limit between 0 and 1000000, 'nothing, or from 0 to 1,000,000'),
    ('compensate_retry_limit', s.compensate_retry_limit::text, s.compensate_retry_limit between 0 and 1000000,
      'nothing, or from 0 to 1,000,000'),
    ('version', s.version::text, s.version between 0 and 2000000000, 'from 0 to 2,000,000,000'),
    ('bytes', s.bytes::text, s.bytes between 0 and 268435456, 'from 0 to 268,435,456'),
    ('headers', left(s.headers::text, 200), case when jsonb_typeof(s.headers) = 'object' then not exists (
      select from jsonb_each(case when jsonb_typeof(s.headers) = 'object' then s.headers else '{}' end) h where jsonb_typeof(h.value) <> 'string')
      when s.headers is not null then false end, 'nothing, or an object of strings'),
    ('fresh_keys', left(s.fresh_keys::text, 200), case when jsonb_typeof(s.fresh_keys) = 'object' then not exists (
      select from jsonb_each(case when jsonb_typeof(s.fresh_keys) = 'object' then s.fresh_keys else '{}' end) k where jsonb_typeof(k.value) <> 'number')
      when s.fresh_keys is not null then false end, 'nothing, or an object of numbers'),
    ('progress', length(s.progress) || ' characters', s.progress is null or length(s.progress) = s.step_count,
      'nothing, or one character a step')
  ) v (name, found, fits, allowed)
  where not v.fits
  union all
  select s.gid, null, 'steps',
    case when s.step_count is null then jsonb_typeof(s.steps) || ' ' || left(s.steps::text, 200) else s.step_count || ' steps' end,
    'an array of 1 to 1,000 objects'
  from open s where s.step_count is null or s.step_count not between 1 and 1000
  union all
  select s.gid, null, 'steps[' || e.position || ']', left(e.body::text, 200), 'an object with a string action or a number wait_seconds; its compensate and its name are strings'
  from open s
  cross join lateral jsonb_array_elements(case when jsonb_typeof(s.steps) = 'array' then s.steps else '[]' end) with ordinality as e (body, position)
  where jsonb_typeof(e.body) <> 'object' or (jsonb_typeof(e.body -> 'action') is not distinct from 'string') = (jsonb_typeof(e.body -> 'wait_seconds') is not distinct from 'number')
    or jsonb_typeof(e.body -> 'compensate') <> 'string' or jsonb_typeof(e.body -> 'name') <> 'string'
  union all
  select coalesce(s.gid, 'saga id ' || t.saga_id), 'task ' || t.id, v.name, v.found, v.allowed
  from pgsaga.task t
  left join open s on s.id = t.saga_id
  left join pgsaga.lane l on l.id = t.lane
  cross join lateral (values
    ('saga_id', t.saga_id::text, s.id is not null or exists (select from pgsaga.saga f where f.id = t.saga_id), 'the id of a saga'),
    ('run_at', t.run_at::text, t.run_at >= 'epoch' and t.run_at < '10000-01-01 00:00:00+00', 'from 1970 to 9999'),
    ('wait_ends_at', t.wait_ends_at::text, t.wait_ends_at >= 'epoch' and t.wait_ends_at < clock_timestamp() + interval '366 days', 'nothing, or from 1970 to 365 days from now'),
    ('deadline', t.deadline::text, t.deadline >= 'epoch' and t.deadline < '11000-01-01 00:00:00+00', 'nothing, or from 1970 to 10999'),
    ('epoch', t.epoch::text, t.epoch between 0 and 2000000000, 'from 0 to 2,000,000,000'),
    ('attempt', t.attempt::text, t.attempt between 1 and 1000000000, 'from 1 to 1,000,000,000'),
    ('counted', t.counted::text, t.counted between 0 and 1000000000, 'from 0 to 1,000,000,000'),
    ('lost', t.lost::text, t.lost between 0 and 30000, 'from 0 to 30,000'),
    ('lost_isolated', t.lost_isolated::text, t.lost_isolated between 0 and 30000, 'from 0 to 30,000'),
    ('step', t.step::text, t.step between 1 and coalesce(s.step_count, 32767), 'a position in the saga''s steps, from 1'),
    ('bytes', t.bytes::text, t.bytes between 0 and 268435456, 'from 0 to 268,435,456'),
    ('lane', t.lane::text, l.id is not null, 'the id of a lane')
  ) v (name, found, fits, allowed)
  where not v.fits
  union all
  select coalesce(s.gid, 'saga id ' || k.saga_id), 'stuck step ' || left(k.step, 100), 'unreadable', left(k.reason, 1000),
    'a row that workers can read: mend it and retry, or end the saga with resolve or force'
  from pgsaga.stuck k left join open s on s.id = k.saga_id
  where k.unreadable
)
select gid, coalesce(row || ': ', '') || name || ': found ' || coalesce(found, 'nothing') || '; allowed: ' || allowed as found
from place
