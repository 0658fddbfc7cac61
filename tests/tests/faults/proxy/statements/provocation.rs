//! What makes a worker run a statement, and what must come of it.

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Fault, Proxy, eventually};
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::marker;

/// One round of a test: sagas of this round bear its name.
pub(super) struct Provocation<'a> {
    pub(super) scene: &'a mut Scene,
    pub(super) proxy: &'a Proxy,
    pub(super) round: &'static str,
}

impl Provocation<'_> {
    /// Advances in place, rolls back, compensates, ends.
    pub(super) async fn saga_that_turns_back(self) {
        let gid = self.round;
        self.scene
            .saga(gid)
            .step("stock")
            .step("pay")
            .step("ship")
            .action(Behaviour::Refuse("no".into()))
            .insert()
            .await;
        self.scene.ended(gid).await;
        let ops = ["stock action", "pay action", "ship action", "pay compensate", "stock compensate"];
        self.scene.expect(gid, "failed", Some("ship: no"), &ops).await;
    }

    pub(super) async fn parallel_saga(self) {
        let gid = self.round;
        let none = json!([]);
        let saga =
            self.scene.saga(gid).step("hotel").with("after", none.clone()).step("flight").with("after", none);
        let refuse = Behaviour::Refuse("no".into());
        saga.step("pay").with("after", json!(["hotel", "flight"])).action(refuse).insert().await;
        assert_eq!(self.scene.ended(gid).await, ("failed".to_owned(), Some("pay: no".to_owned())));
        let mut ops = self.scene.participant.ops_for(gid);
        ops.sort();
        let each = ["flight action", "flight compensate", "hotel action", "hotel compensate", "pay action"];
        assert_eq!(ops, each);
    }

    /// What a lost reply makes the worker forget, reconciling hands back.
    pub(super) async fn forgotten_claim(self) {
        let forgotten = self.proxy.inject(Fault::cut_before_reply(marker("claim")));
        // A claim that finds nothing forgets nothing.
        self.scene.saga(self.round).step("pay").insert().await;
        let ops: &[&str] = &["pay action"];
        self.scene.expect(self.round, "succeeded", None, ops).await;
        forgotten.lift();
        let gid = format!("{}-forgotten", self.round);
        claim_and_forget(self.scene, self.proxy, &gid).await;
        self.scene.expect(&gid, "succeeded", None, ops).await;
    }

    /// One that somebody else holds, whose counter stands still.
    pub(super) async fn dead_worker(self) {
        let gid = self.round;
        let mut transaction = self.scene.pool().begin().await.unwrap();
        let worker = "insert into pgsaga.worker (lease_ms, host, pid, version) values (300, 'gone', 1, '0') returning id";
        let dead: i64 = sqlx::query_scalar(worker).fetch_one(&mut *transaction).await.unwrap();
        let steps = self.scene.saga(gid).step("pay").steps();
        let insert = "insert into pgsaga.saga (gid, steps) values ($1, $2)";
        sqlx::query(insert).bind(gid).bind(steps).execute(&mut *transaction).await.unwrap();
        let claim = "update pgsaga.task set worker = $1, epoch = epoch + 1
            where saga_id = (select id from pgsaga.saga where gid = $2)";
        sqlx::query(claim).bind(dead).bind(gid).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        self.scene.expect(gid, "succeeded", None, &["pay action"]).await;
        assert_eq!(self.scene.history(gid).await, ["pay action 1 unknown", "pay action 2 success"]);
        eventually(PATIENCE, "the dead worker is buried", async || {
            let rows = "select count(*) from pgsaga.worker where id = $1";
            let rows: i64 = sqlx::query_scalar(rows).bind(dead).fetch_one(self.scene.pool()).await.unwrap();
            (rows == 0).then_some(())
        })
        .await;
    }

    /// A task that lost three workers.
    pub(super) async fn suspect(self) {
        let gid = self.round;
        let mut transaction = self.scene.pool().begin().await.unwrap();
        let steps = self.scene.saga(gid).step("pay").steps();
        let insert = "insert into pgsaga.saga (gid, steps) values ($1, $2)";
        sqlx::query(insert).bind(gid).bind(steps).execute(&mut *transaction).await.unwrap();
        let lost =
            "update pgsaga.task set lost = 3 where saga_id = (select id from pgsaga.saga where gid = $1)";
        sqlx::query(lost).bind(gid).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        self.scene.expect(gid, "succeeded", None, &["pay action"]).await;
    }

    /// Somebody changes a task by hand, so that its saga needs a person, who has it tried again.
    pub(super) async fn changed(self, change: &str) {
        let gid = self.round;
        let mut transaction = self.scene.pool().begin().await.unwrap();
        let steps = self.scene.saga(gid).step("pay").steps();
        let insert = "insert into pgsaga.saga (gid, steps) values ($1, $2)";
        sqlx::query(insert).bind(gid).bind(steps).execute(&mut *transaction).await.unwrap();
        let change = format!(
            "update pgsaga.task set {change} where saga_id = (select id from pgsaga.saga where gid = $1)"
        );
        sqlx::query(AssertSqlSafe(change)).bind(gid).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(self.scene.ended(gid).await.0, "stuck");
        sqlx::query("select pgsaga.retry($1)").bind(gid).execute(self.scene.pool()).await.unwrap();
        eventually(PATIENCE, "it goes on", async || {
            (self.scene.status(gid).await?.0 == "succeeded").then_some(())
        })
        .await;
        self.scene.expect(gid, "succeeded", None, &["pay action"]).await;
    }

    /// No worker has its participant: it is left to others, and rolled back at its deadline.
    pub(super) async fn unserved(self) {
        let gid = self.round;
        let steps = json!([{"name": "pay", "action": format!("participant:{gid}/pay")}]);
        let insert = "insert into pgsaga.saga (gid, steps, timeout_to_fail) values ($1, $2, '4 seconds')";
        sqlx::query(insert).bind(gid).bind(steps).execute(self.scene.pool()).await.unwrap();
        self.scene.expect(gid, "failed", Some("pay: timeout after 4 seconds"), &[]).await;
        assert_eq!(self.scene.history(gid).await, [""; 0]);
    }

    /// Its breaker opens, and what is due for it is deferred while the fault lasts.
    pub(super) async fn dead_participant(self) {
        let before = errors(self.scene).await;
        self.scene.participant.refuse_connections().await;
        for n in 0..25 {
            self.scene.saga(&format!("{}-{n}", self.round)).step("pay").insert().await;
        }
        eventually(PATIENCE, "parking fails", async || (errors(self.scene).await > before).then_some(()))
            .await;
        self.scene.participant.accept_again().await;
        for n in 0..25 {
            self.scene.expect(&format!("{}-{n}", self.round), "succeeded", None, &["pay action"]).await;
        }
    }

    /// What `finished_sagas` made has finished a day ago.
    pub(super) async fn old_sagas(self) {
        let old = "update pgsaga.saga set created_at = created_at - interval '1 day', finished_at = finished_at - interval '1 day'";
        sqlx::raw_sql(old).execute(self.scene.pool()).await.unwrap();
        eventually(PATIENCE, "all are gone with their history", async || {
            let left = "select (select count(*) from pgsaga.saga) + (select count(*) from pgsaga.history)";
            let left: i64 = sqlx::query_scalar(left).fetch_one(self.scene.pool()).await.unwrap();
            (left == 0).then_some(())
        })
        .await;
    }
}

/// Two that retention leaves alone: one in a history partition that goes as a whole with it, one
/// beside sagas to come.
pub(super) async fn finished_sagas(scene: &Scene) {
    let passes = async || scene.metric("pgsaga_loop_ticks_total{loop=\"retention\"}").await;
    for _ in 0..2 {
        let insert =
            "with part as materialized (select last_value / 1000000 + 1 as n from pgsaga.saga_id_seq),
            saga as (
              insert into pgsaga.saga (id, gid, steps) overriding system value
              select n * 1000000, 'old-' || n, '[{\"action\": \"\"}]'::jsonb from part
            )
            select setval('pgsaga.saga_id_seq', n * 1000000) from part";
        sqlx::query(insert).execute(scene.pool()).await.unwrap();
        sqlx::raw_sql("select pgsaga.make_history_partitions()").execute(scene.pool()).await.unwrap();
        // A pass that went by the first one's place before it was there may not meet the second:
        // the next passes would begin at that one, and only after the time that sagas are kept from
        // the beginning.
        let before = passes().await;
        eventually(PATIENCE, "a pass of retention ends", async || (passes().await > before).then_some(()))
            .await;
    }
    scene.all_ended(PATIENCE).await;
}

/// Inserts a saga that the worker claims without knowing it: every claim's reply is lost until one
/// has found it.
pub(super) async fn claim_and_forget(scene: &Scene, proxy: &Proxy, gid: &str) {
    let forgotten = proxy.inject(Fault::cut_before_reply(marker("claim")).always());
    // One may be under way, and its reply with it. An idle worker claims nothing unless it is told
    // to.
    eventually(PATIENCE, "a claim is lost", async || {
        sqlx::raw_sql("notify pgsaga").execute(scene.pool()).await.unwrap();
        (forgotten.struck() > 0).then_some(())
    })
    .await;
    scene.saga(gid).step("pay").insert().await;
    eventually(PATIENCE, "it is claimed", async || {
        let claimed = "select t.worker is not null from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id where s.gid = $1";
        let claimed: bool = sqlx::query_scalar(claimed).bind(gid).fetch_one(scene.pool()).await.unwrap();
        claimed.then_some(())
    })
    .await;
    forgotten.lift();
}

pub(super) async fn errors(scene: &Scene) -> f64 {
    scene.metric("pgsaga_database_errors_total{class=\"connection\"}").await
}
