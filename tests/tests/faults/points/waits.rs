//! A worker dies while sagas wait and others report: at each statement of the worker.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Worker, binary, eventually, sized};
use serde_json::json;
use tokio::task::spawn_blocking;

/// Where the worker dies.
const POINTS: [&str; 14] = [
    "claim:before",
    "claim:after",
    "claimed",
    "call:before",
    "call:after",
    "settle:before",
    "settle:after",
    "settle_parallel:before",
    "settle_parallel:after",
    "rescue:before",
    "rescue:after",
    "bury:before",
    "heartbeat:before",
    "heartbeat:after",
];

/// Kinds of sagas, their ends, and what is called of each at least once and in this order. Of the
/// rest, a death decides: a call whose end is reported is not made any more, and what was lost with
/// a worker is undone.
const KINDS: [(&str, &str, &[&str]); 6] = [
    ("first", "succeeded", &["ship action"]),
    ("refused", "failed", &["stock action", "stock compensate"]),
    ("accepted", "succeeded", &["ship action"]),
    ("parallel", "succeeded", &["join action"]),
    ("undone", "failed", &["stock action", "pay action"]),
    ("early", "failed", &["stock action", "approval compensate"]),
];

async fn insert(scene: &Scene, prefix: &str, count: usize) {
    let accepts = || Behaviour::Raw {
        status: 202,
        headers: vec![("saga-wait-seconds".to_owned(), "86400".to_owned())],
        body: Vec::new(),
    };
    for nth in 0..count {
        let saga = |kind: &str| scene.saga(&format!("{prefix}-{kind}-{nth}"));
        saga("first").step("approval").waits(86_400.0).step("ship").insert().await;
        saga("refused").step("stock").step("approval").waits(86_400.0).step("ship").insert().await;
        saga("accepted").step("label").action(accepts()).step("ship").insert().await;
        let parallel = saga("parallel").step("approval").with("after", json!([])).waits(86_400.0);
        let parallel = parallel.step("money").with("after", json!([])).waits(86_400.0);
        parallel.step("join").with("after", json!(["approval", "money"])).insert().await;
        let undone = saga("undone").step("stock").compensate(accepts()).step("pay");
        undone.action(Behaviour::Refuse("no".into())).insert().await;
        let early = saga("early").step("stock").action(Behaviour::Refuse("none".into()));
        let early = early.step("approval").waits(86_400.0);
        early.column("run_at", "now() + interval '1 hour'").insert().await;
        scene.complete(&format!("'{prefix}-early-{nth}', 'approval', 'success'")).await.unwrap();
    }
    let now = "update pgsaga.task t set run_at = clock_timestamp() from pgsaga.saga s
               where s.id = t.saga_id and s.gid like $1 || '-early-%'";
    sqlx::query(now).bind(prefix).execute(scene.pool()).await.unwrap();
}

/// Reports what each of these sagas waits for, again and again, as somebody does who has no reply.
async fn report(scene: &Scene, prefix: &str, count: usize) {
    let wait_for = [
        ("first", "'approval', 'success'"),
        ("refused", "'approval', 'failure', comment => 'no'"),
        ("accepted", "'label', 'success', '1'"),
        ("parallel", "'approval', 'success'"),
        ("parallel", "'money', 'success'"),
        ("undone", "'stock', 'success', op => 'compensate'"),
        ("early", "'approval', 'success'"),
    ];
    for (kind, arguments) in wait_for {
        for nth in 0..count {
            eventually(PATIENCE, "it can be reported", async || {
                scene.complete(&format!("'{prefix}-{kind}-{nth}', {arguments}")).await.ok()
            })
            .await;
        }
    }
}

fn start(scene: &Scene, program: &Path, env: &[(&str, &str)]) -> Worker {
    Worker::spawn_program(program, scene.db.url(), &["--lease-seconds", "2"], env)
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_worker_dies_what_was_reported_counts_once() {
    let failing = spawn_blocking(binary::failing).await.unwrap();
    let cluster = Cluster::own(true, false).await;
    let scene = Scene::on(&cluster).await;
    let count = sized(4, 40);
    for point in POINTS {
        let prefix = point.replace(':', "-");
        let folder = tempfile::tempdir().unwrap();
        let armed = folder.path().join("armed");
        // There is something to rescue.
        let mut killed = point.starts_with("rescue").then(|| start(&scene, &failing.pgsaga, &[]));
        insert(&scene, &prefix, count).await;
        if let Some(killed) = &mut killed {
            scene.participant.wait_for_calls(scene.participant.calls().len() + 1, PATIENCE).await;
            killed.kill9();
        }
        let env = [("FAIL_AT", point), ("FAIL_WHEN", armed.to_str().unwrap())];
        let mut mortal = start(&scene, &failing.pgsaga, &env);
        let dies = async {
            File::create(&armed).unwrap();
            let exit = mortal.wait_exit(PATIENCE).await;
            assert_eq!(exit.signal(), Some(Signal::SIGABRT as i32), "{point}: it died of something else");
            start(&scene, &failing.pgsaga, &[])
        };
        // The next worker lives until all have ended.
        let (_next, ()) = tokio::join!(dies, report(&scene, &prefix, count));
        scene.all_ended(PATIENCE).await;
        for (kind, status, ops) in KINDS {
            for nth in 0..count {
                let gid = format!("{prefix}-{kind}-{nth}");
                assert_eq!(scene.status(&gid).await.unwrap().0, status, "{gid}");
                let mut called = scene.participant.ops_for(&gid);
                called.dedup();
                called.retain(|op| ops.contains(&op.as_str()));
                assert_eq!(called, ops, "{gid}");
            }
        }
        scene.healthy().await;
    }
}
