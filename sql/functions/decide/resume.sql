-- version 1: expands

-- Resumes a paused queue.
create or replace function pgsaga.resume(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update pgsaga.queue q set paused_at = null, paused_by = null where q.name = resume.queue;
  if not found then
    raise exception using errcode = 'no_data_found', message = format('no saga was ever in the queue %s; queues: %s',
      to_json(coalesce(resume.queue, 'null')), (select string_agg(to_json(name)::text, ', ' order by name) from pgsaga.queue));
  end if;
  perform pg_notify('pgsaga', '');
end
$$;
revoke all on function pgsaga.resume from public;
grant execute on function pgsaga.resume to pgsaga_operator;
