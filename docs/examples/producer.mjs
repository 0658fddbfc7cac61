// DATABASE_URL=postgres://… node docs/examples/producer.mjs       (needs pg: npm install pg)
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

const [order, cents] = [3, 990];
const gid = `order-${order}`;
const steps = [
  { name: "stock", action: "http://127.0.0.1:8080/stock/reserve", compensate: "http://127.0.0.1:8080/stock/release",
    payload: { order } },
  { name: "payment", action: "http://127.0.0.1:8080/payment/charge", compensate: "http://127.0.0.1:8080/payment/refund",
    payload: { order, cents } },
];

const client = new pg.Client({ connectionString: process.env.DATABASE_URL });
await client.connect();
try {
  await client.query("create table if not exists orders (id bigint primary key, cents bigint not null)");
  await client.query("begin");
  await client.query("insert into orders (id, cents) values ($1, $2) on conflict (id) do nothing", [order, cents]);
  // As text: pg would make a Postgres array of a JavaScript one.
  await client.query("insert into pgsaga.saga (gid, steps) values ($1, $2) on conflict (gid) do nothing", [gid, JSON.stringify(steps)]);
  await client.query("commit");
  console.log(gid);

  // Waiting is optional: the saga goes on by itself. Ask seldom, and more seldom the longer it takes.
  for (let pause = 50; ; pause *= 2) {
    const { rows } = await client.query("select status, reason from pgsaga.saga where gid = $1", [gid]);
    const { status, reason } = rows[0];
    if (["succeeded", "failed", "stuck"].includes(status) || pause > 10_000) {
      console.log(status, reason ?? "");
      break;
    }
    await sleep(pause);
  }
} finally {
  await client.end(); // an open transaction is rolled back
}
