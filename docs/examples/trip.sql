-- psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f docs/examples/trip.sql
insert into pgsaga.saga (gid, timeout_to_fail, labels, result_mapping, steps) values ('trip-1', '10 minutes', '{"customer": "8"}',
  '{"hotel": {"$from": "hotel", "path": "/message"}, "flight": {"$from": "flight", "path": "/message"}}', '[
  {"name": "hotel", "after": [], "action": "http://127.0.0.1:8080/hotel/book", "compensate": "http://127.0.0.1:8080/hotel/cancel"},
  {"name": "flight", "after": [], "action": "http://127.0.0.1:8080/flight/book", "compensate": "http://127.0.0.1:8080/flight/cancel",
   "compensate_payload": {"booking": {"$from": "flight", "path": "/message"}}},
  {"name": "payment", "after": ["hotel", "flight"], "pivot": true, "action": "http://127.0.0.1:8080/payment/charge",
   "payload": {"cents": 99000}, "retry_interval_seconds": 2},
  {"name": "mail", "action": "http://127.0.0.1:8080/mail/send", "payload": {"receipt": {"$from": "payment"}}}
]') on conflict (gid) do nothing;
