-- `pgsaga ui`: how far ui_sagas looked before the id $1, at $2 sagas at most; or, where $3,
-- ui_sagas_open, with ($4) or without tasks: at $2 `entries`, of which a saga may have several.
-- Indexes: as theirs.
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
