# DATABASE_URL=postgres://… python3 docs/examples/producer.py       (needs psycopg 3: pip install 'psycopg[binary]')
import os
import time

import psycopg
from psycopg.types.json import Jsonb

order, cents = 2, 990
gid = f"order-{order}"
steps = [
    {"name": "stock", "action": "http://127.0.0.1:8080/stock/reserve", "compensate": "http://127.0.0.1:8080/stock/release",
     "payload": {"order": order}},
    {"name": "payment", "action": "http://127.0.0.1:8080/payment/charge", "compensate": "http://127.0.0.1:8080/payment/refund",
     "payload": {"order": order, "cents": cents}},
]

with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
    connection.execute("create table if not exists orders (id bigint primary key, cents bigint not null)")
    with connection.transaction():
        connection.execute("insert into orders (id, cents) values (%s, %s) on conflict (id) do nothing", (order, cents))
        connection.execute("insert into pgsaga.saga (gid, steps) values (%s, %s) on conflict (gid) do nothing", (gid, Jsonb(steps)))
    print(gid)

    # Waiting is optional: the saga goes on by itself. Ask seldom, and more seldom the longer it takes.
    pause = 0.05
    while True:
        status, reason = connection.execute("select status, reason from pgsaga.saga where gid = %s", (gid,)).fetchone()
        if status in ("succeeded", "failed", "stuck") or pause > 10:
            break
        time.sleep(pause)
        pause *= 2
    print(status, reason or "")
