// DATABASE_URL=postgres://… npx tsx docs/examples/orm/with_drizzle.mts       (needs drizzle-orm, pg and tsx)
import { setTimeout as sleep } from "node:timers/promises";
import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { bigint, jsonb, pgSchema, pgTable, text } from "drizzle-orm/pg-core";
import pg from "pg";

const orders = pgTable("orders", {
  id: bigint({ mode: "number" }).primaryKey(),
  cents: bigint({ mode: "number" }).notNull(),
});

const pgsaga = pgSchema("pgsaga");
// The columns that an INSERT gives, and no others: Drizzle writes all columns of a table.
const newSaga = pgsaga.table("saga", { gid: text("gid").notNull(), steps: jsonb("steps").notNull() });
// The columns that may be read. They are named, because Drizzle finds names for only one definition of a table.
const saga = pgsaga.table("saga", {
  id: bigint("id", { mode: "number" }).notNull(),
  gid: text("gid").notNull(),
  status: text("status").notNull(),
  reason: text("reason"),
});

const [order, cents] = [7, 990];
const gid = `order-${order}`;
const steps = [
  { name: "stock", action: "http://127.0.0.1:8080/stock/reserve", compensate: "http://127.0.0.1:8080/stock/release",
    payload: { order } },
  { name: "payment", action: "http://127.0.0.1:8080/payment/charge", compensate: "http://127.0.0.1:8080/payment/refund",
    payload: { order, cents } },
];

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const db = drizzle({ client: pool });
try {
  await db.execute(sql`create table if not exists orders (id bigint primary key, cents bigint not null)`);
  const [created] = await db.transaction(async (tx) => {
    await tx.insert(orders).values({ id: order, cents }).onConflictDoNothing({ target: orders.id });
    return tx.insert(newSaga).values({ gid, steps }).onConflictDoNothing({ target: newSaga.gid })
      .returning({ id: sql<string>`id` });
  });
  console.log(gid, created ? `has the id ${created.id}` : "was there already");

  // Waiting is optional: the saga goes on by itself. Ask seldom, and more seldom the longer it takes.
  for (let pause = 50; ; pause *= 2) {
    const [{ status, reason }] = await db.select({ status: saga.status, reason: saga.reason }).from(saga).where(eq(saga.gid, gid));
    if (["succeeded", "failed", "stuck"].includes(status) || pause > 10_000) {
      console.log(status, reason ?? "");
      break;
    }
    await sleep(pause);
  }
} finally {
  await pool.end();
}
