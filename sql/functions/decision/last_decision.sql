-- version 1: expands

-- Returns the number of the newest decision or completion in a saga's history, null where there is
-- none. Compared before and after a decision, it says whether the decision was recorded.
create or replace function pgsaga.last_decision(gid text) returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select max(h.seq) from pgsaga.saga s join pgsaga.history h on h.saga_id = s.id
  where s.gid = last_decision.gid and h.kind in ('decision', 'completion')
$$;
revoke all on function pgsaga.last_decision from public;
grant execute on function pgsaga.last_decision to pgsaga_producer, pgsaga_operator;
