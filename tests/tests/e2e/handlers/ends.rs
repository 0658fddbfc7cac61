//! How a handler ends: by itself, or because it was asked to, and never beside its next attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgsaga_tests::eventually;
use pgsaga_tests::local::LocalWorker;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_worker::{Call, HandlerError, Participant};
use serde_json::json;
use tokio::sync::Notify;

/// A handler that runs until it is asked to end, and counts how many run at once.
#[derive(Debug, Clone, Default)]
struct Long {
    running: Arc<AtomicUsize>,
    at_once_max: Arc<AtomicUsize>,
    attempts: Arc<AtomicUsize>,
    began: Arc<Notify>,
}

/// Counts a run until it is dropped.
struct Run(Arc<AtomicUsize>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Long {
    fn begin(&self) -> Run {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once_max.fetch_max(running, Ordering::SeqCst);
        self.attempts.fetch_add(1, Ordering::SeqCst);
        self.began.notify_one();
        Run(Arc::clone(&self.running))
    }

    /// Ends `after` it was asked to. The second attempt succeeds.
    fn participant(&self, after: Duration) -> Participant {
        let long = self.clone();
        let work = move |call: Call<()>| {
            let long = long.clone();
            async move {
                let _run = long.begin();
                if call.attempt() > 1 {
                    return Ok(());
                }
                call.cancellation().cancelled().await;
                tokio::time::sleep(after).await;
                Err(HandlerError::from("asked to end"))
            }
        };
        Participant::new("long").action("work", work)
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }

    fn at_once_max(&self) -> usize {
        self.at_once_max.load(Ordering::SeqCst)
    }
}

async fn insert(scene: &Scene, gid: &str, columns: &str, values: &str) {
    let steps = json!([{"name": "long", "action": "participant:long/work"}]);
    let insert = format!(
        "insert into pgsaga.saga (gid, steps, retry_interval{columns}) values ($1, $2, '20 milliseconds'{values})"
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(gid).bind(steps).execute(scene.pool()).await.unwrap();
}

/// The next attempt begins when the handler has ended, and not when its time is over.
#[tokio::test]
async fn after_its_request_timeout_a_handler_is_asked_to_end_and_no_attempt_runs_beside_it() {
    let scene = Scene::new().await;
    let long = Long::default();
    let builder =
        LocalWorker::builder(scene.db.url()).participant(long.participant(Duration::from_millis(700)));
    let worker = LocalWorker::start(builder).await;
    insert(&scene, "s", ", request_timeout", ", '300 milliseconds'").await;
    assert_eq!(scene.ended("s").await, ("succeeded".to_owned(), None));
    assert_eq!(scene.history("s").await, ["long action 1 unknown", "long action 2 success"]);
    let took_us: i32 = sqlx::query_scalar("select duration_us from pgsaga.history where attempt = 1")
        .fetch_one(scene.pool())
        .await
        .unwrap();
    assert!(took_us >= 1_000_000, "{took_us} µs");
    assert_eq!((long.attempts(), long.at_once_max()), (2, 1));
    scene.healthy().await;
    worker.ended().await;
}

#[tokio::test]
async fn an_abort_and_the_deadline_ask_a_handler_to_end_long_before_its_request_timeout() {
    let scene = Scene::new().await;
    let long = Long::default();
    let builder = LocalWorker::builder(scene.db.url()).participant(long.participant(Duration::ZERO));
    let worker = LocalWorker::start(builder).await;
    insert(&scene, "aborted", ", request_timeout", ", '1 hour'").await;
    long.began.notified().await;
    sqlx::query("select pgsaga.abort('aborted', 'no longer wanted')").execute(scene.pool()).await.unwrap();
    let (status, reason) = scene.ended("aborted").await;
    assert_eq!((status.as_str(), reason.as_deref()), ("failed", Some("long: aborted: no longer wanted")));
    insert(&scene, "late", ", request_timeout, timeout_to_fail", ", '1 hour', '300 milliseconds'").await;
    let (status, reason) = scene.ended("late").await;
    assert_eq!((status.as_str(), reason.as_deref()), ("failed", Some("long: timeout after 0.3 seconds")));
    assert_eq!((long.attempts(), long.at_once_max()), (2, 1));
    scene.healthy().await;
    worker.ended().await;
}

#[tokio::test]
async fn a_drain_asks_handlers_to_end_and_drops_those_that_outlast_the_grace() {
    let scene = Scene::new().await;
    for (gid, after, is_awaited) in
        [("awaited", Duration::from_millis(300), true), ("dropped", Duration::from_secs(3600), false)]
    {
        let long = Long::default();
        let builder = LocalWorker::builder(scene.db.url())
            .grace(Duration::from_secs(1))
            .participant(long.participant(after));
        let mut worker = LocalWorker::start(builder).await;
        insert(&scene, gid, ", request_timeout", ", '1 hour'").await;
        long.began.notified().await;
        let began = Instant::now();
        worker.stop();
        worker.ended().await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(long.running.load(Ordering::SeqCst), 0, "no handler runs after the worker's end");
        let history = scene.history(gid).await;
        assert_eq!(history.len(), usize::from(is_awaited), "{history:?}");
        // Another worker goes on. It rescues what was cut off, and records that attempt as unknown.
        let next = LocalWorker::builder(scene.db.url()).participant(long.participant(Duration::ZERO));
        let next = LocalWorker::start(next).await;
        assert_eq!(scene.ended(gid).await, ("succeeded".to_owned(), None));
        assert_eq!(scene.history(gid).await, ["long action 1 unknown", "long action 2 success"]);
        assert_eq!(long.at_once_max(), 1);
        next.ended().await;
    }
    scene.healthy().await;
}

/// The runtime of this test has one thread, which the handler holds for two leases.
#[tokio::test]
async fn a_handler_that_never_yields_costs_the_worker_neither_its_lease_nor_its_tasks() {
    let mut scene = Scene::new().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let blocks = {
        let attempts = Arc::clone(&attempts);
        move |_: Call<()>| {
            let attempts = Arc::clone(&attempts);
            async move {
                attempts.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_secs(5));
                Ok::<(), HandlerError>(())
            }
        }
    };
    // Another process, which would rescue the tasks of a silent worker.
    scene.start_worker(&[]).await;
    let builder =
        LocalWorker::builder(scene.db.url()).participant(Participant::new("long").action("work", blocks));
    let worker = LocalWorker::start(builder).await;
    insert(&scene, "s", ", request_timeout", ", '1 hour'").await;
    assert_eq!(scene.ended("s").await, ("succeeded".to_owned(), None));
    assert_eq!(scene.history("s").await, ["long action 1 success"]);
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
    assert_eq!(scene.metric("pgsaga_dead_workers_total").await, 0.0);
    scene.healthy().await;
    worker.ended().await;
}

/// A handler of a worker that was declared dead is asked to end, because its next attempt may run
/// elsewhere.
#[tokio::test]
async fn a_handler_of_a_worker_that_lost_its_lease_is_asked_to_end() {
    let scene = Scene::new().await;
    let long = Long::default();
    let builder = LocalWorker::builder(scene.db.url()).participant(long.participant(Duration::ZERO));
    let worker = LocalWorker::start(builder).await;
    insert(&scene, "s", ", request_timeout", ", '1 hour'").await;
    long.began.notified().await;
    sqlx::query("update pgsaga.worker set dead = true").execute(scene.pool()).await.unwrap();
    eventually(PATIENCE, "the handler ends", async || {
        (long.running.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
    assert_eq!(scene.ended("s").await, ("succeeded".to_owned(), None));
    assert_eq!(scene.history("s").await, ["long action 1 unknown", "long action 2 success"]);
    scene.healthy().await;
    worker.ended().await;
}
