-- version 1: expands

-- Resumes a paused queue.
create or replace function pgsaga.resume(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from pgsaga.lane l where l.queue = resume.queue) then
    raise exception using errcode = 'no_data_found', message = format('no saga was ever in the queue %s; queues: %s',
      to_json(coalesce(resume.queue, 'null')),
      (select string_agg(to_json(q.queue)::text, ', ' order by q.queue) from (select distinct l.queue from pgsaga.lane l) q));
  end if;
  delete from pgsaga.paused_queue q where q.name = resume.queue;
  perform pg_notify('pgsaga', '');
end
$$;
revoke all on function pgsaga.resume from public;
grant execute on function pgsaga.resume to pgsaga_operator;
