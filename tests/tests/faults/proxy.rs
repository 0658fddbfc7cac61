//! A proxy between Postgres and its clients cuts, stalls and resets their connections
//! (`pgsaga_tests::proxy`).

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::future::{FutureExt as _, join_all};
use pgsaga_sql::query;
use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Cluster, Proxy, Worker};
use tokio::sync::OnceCell;

mod itself;
mod link;
mod producers;
mod statements;
mod transactional;

/// Fsync on, TCP; shared by these tests, and ended by the kernel with this process.
async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(async || Cluster::own(true, true).await.keeping_databases()).await
}

/// A scene, and a proxy in front of its database.
async fn scene() -> (Scene, Proxy) {
    let scene = Scene::on(cluster().await).await;
    let proxy = Proxy::start(scene.db.tcp_url().unwrap()).await.unwrap();
    (scene, proxy)
}

/// A worker behind the proxy, its lease two seconds and its statements one unless the flags say
/// otherwise; not yet ready.
fn spawn(scene: &mut Scene, proxy: &Proxy, flags: &[&str]) {
    let mut all = flags.to_vec();
    for [name, value] in [["--lease-seconds", "2"], ["--database-timeout-seconds", "1"]] {
        if !flags.contains(&name) {
            all.extend([name, value]);
        }
    }
    scene.workers.push(Worker::spawn(proxy.url(), &all));
}

/// What names a statement on the wire: the first line of its file.
fn marker(statement: &str) -> &'static str {
    let known = query::all().find(|known| known.name == statement).expect("a statement of this name");
    known.sql.lines().next().unwrap()
}

/// Runs tests at once: nearly all of their time they wait.
async fn all<F: Future<Output = ()>>(tests: impl Iterator<Item = (String, F)>) {
    let caught = tests.map(async |(name, test)| {
        let started = Instant::now();
        let result = AssertUnwindSafe(test).catch_unwind().await;
        eprintln!("{name}: {:?}", started.elapsed());
        result.err().map(|_| name)
    });
    let failed: Vec<String> = join_all(caught).await.into_iter().flatten().collect();
    assert_eq!(failed, Vec::<String>::new(), "what failed is above");
}
