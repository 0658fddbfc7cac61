-- psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f docs/examples/producer.sql
create table if not exists orders (id bigint primary key, cents bigint not null);

begin;
insert into orders (id, cents) values (1, 990) on conflict (id) do nothing;
insert into pgsaga.saga (gid, steps) values ('order-1', '[
  {"name": "stock",   "action": "http://127.0.0.1:8080/stock/reserve", "compensate": "http://127.0.0.1:8080/stock/release",
   "payload": {"order": 1}},
  {"name": "payment", "action": "http://127.0.0.1:8080/payment/charge", "compensate": "http://127.0.0.1:8080/payment/refund",
   "payload": {"order": 1, "cents": 990}}
]') on conflict (gid) do nothing;
commit;

-- The saga goes on by itself. Look again whenever you like: it ends as succeeded or failed.
select gid, status, reason from pgsaga.saga where gid = 'order-1';
