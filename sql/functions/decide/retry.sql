-- version 1: expands

-- Tries the stuck steps of a saga again, under the same idempotency keys. What was reported of a
-- stuck op is forgotten, and a step that waits for a completion waits anew. With `fresh_key` the
-- keys are new. A participant that remembers its refusal needs a new key. A new key is safe only
-- where every try was definitely refused; where one was not, the work could be done twice.
create or replace function pgsaga.retry(gid text, comment text default null, fresh_key boolean default false) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  s pgsaga.saga;
  k pgsaga.stuck;
  key text;
  keys jsonb;
  number numeric;
begin
  if comment is not null then
    perform pgsaga.check_comment(comment, 'comment');
  end if;
  s := pgsaga.lock_saga(gid);
  if s.status <> 'stuck' then
    -- Without a stuck step, the task that waits for its next try runs now. A saga whose `run_at`
    -- has not come yet does not wait for a try, and neither does an op that waits for a completion.
    update pgsaga.task set run_at = clock_timestamp()
      where saga_id = s.id and worker is null and run_at > clock_timestamp() and coalesce(s.run_at <= clock_timestamp(), true)
        and coalesce(wait_ends_at <= clock_timestamp(), true);
    if not found then
      raise exception using errcode = 'object_not_in_prerequisite_state',
        message = format('saga %s is %s: nothing of it is stuck or waits for a retry%s', s.gid, s.status,
          (select format('; %s waits for a completion: allowed: complete or skip', to_json(pgsaga.step_name(s.steps, t.step)))
           from pgsaga.task t where t.saga_id = s.id and t.wait_ends_at > clock_timestamp() order by t.step limit 1));
    end if;
    if fresh_key then
      raise exception using errcode = 'object_not_in_prerequisite_state',
        message = format('saga %s is %s: only a stuck step gets a fresh key', s.gid, s.status);
    end if;
    perform pgsaga.record_decision(s, 'retry', null, comment);
    return s.status;
  end if;
  for k in select * from pgsaga.stuck where saga_id = s.id order by position loop
    k.position := pgsaga.stuck_position(s, k.step, k.position);
    k.op := coalesce(k.op, 'action');
    if fresh_key then
      -- control: fresh-key-refused
      if exists (select from pgsaga.history h where h.saga_id = s.id and h.step = k.position and h.op = k.op
                 and h.kind = 'attempt' and h.outcome not in (select o.outcome from pgsaga.outcome o where o.effect = 'none')) then
        raise exception using errcode = 'object_not_in_prerequisite_state',
          message = format('step %s: some %s of it was not definitely refused: a fresh key could do it twice', to_json(k.step), k.op);
      end if;
      key := k.position || '/' || k.op;
      select case when jsonb_typeof(fresh_keys) = 'object' then fresh_keys else '{}' end into keys from pgsaga.saga where id = s.id;
      number := case when jsonb_typeof(keys -> key) = 'number' then (keys -> key)::numeric else 0 end;
      if number < 0 or number >= 2147483647 or number <> trunc(number) then
        raise exception using errcode = 'object_not_in_prerequisite_state',
          message = format('fresh_keys %s: found %s; allowed: a whole number from 0 to 2,147,483,646', to_json(key), left(number::text, 64));
      end if;
      update pgsaga.saga set fresh_keys = keys || jsonb_build_object(key, number::int + 1) where id = s.id;
    end if;
    perform pgsaga.record_decision(s, 'retry', k.position,
      nullif(concat_ws(', ', case when fresh_key then 'with a fresh key' end, comment), ''));
  end loop;
  perform pgsaga.unstick(s, null, null);
  return pgsaga.unstuck_status(s);
end
$$;
revoke all on function pgsaga.retry from public;
grant execute on function pgsaga.retry to pgsaga_operator;
