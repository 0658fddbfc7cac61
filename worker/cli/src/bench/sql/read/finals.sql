-- When sagas reached their final state since $1 (microseconds), of up to 200,000 evenly chosen
-- ones.
select gid, (date_part('epoch', finished_at) * 1000000)::bigint as at_us from pgsaga.saga
where finished_at >= to_timestamp($1::bigint / 1e6)
  and id % greatest(1, (select count(*) / 200000 from pgsaga.saga)) = 0
