-- `pgsaga ui`: returns how far ui_sagas examines before the id $1 if it examines at most $2 sagas.
-- If $3, returns the same for ui_sagas_open, with tasks if $4 and without tasks otherwise, and $2
-- counts entries, of which a saga may have several. Indexes: those of the two statements.
select count(*) as entries, count(distinct s.id) as looked_at, min(s.id) as last_id from (
  (select id from pgsaga.saga where not $3::boolean and id < coalesce($1::bigint, 9223372036854775807) order by id desc limit $2)
  union all
  (select q.saga_id from (
     (select saga_id from pgsaga.task where $3::boolean and $4::boolean and saga_id < coalesce($1::bigint, 9223372036854775807)
      order by saga_id desc limit $2)
     union all
     (select saga_id from pgsaga.stuck where $3::boolean and saga_id < coalesce($1::bigint, 9223372036854775807)
      order by saga_id desc limit $2)
   ) q order by q.saga_id desc limit $2)
) s
