//! A proxy between Postgres and its clients cuts, stalls and resets their connections (`pgsaga_tests::proxy`).

use pgsaga_sql::query;
use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Cluster, Proxy, Worker};
use tokio::sync::OnceCell;

mod itself;
mod link;
mod producers;
mod statements;

/// Fsync on, TCP; shared by these tests, and ended by the kernel with this process.
async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(|| Cluster::own(true, true)).await
}

/// A scene, and a proxy in front of its database.
async fn scene() -> (Scene, Proxy) {
    let scene = Scene::on(cluster().await).await;
    let proxy = Proxy::start(scene.db.tcp_url().unwrap()).await;
    (scene, proxy)
}

/// A worker behind the proxy, its lease two seconds and its statements one; not yet ready.
fn spawn(scene: &mut Scene, proxy: &Proxy, flags: &[&str]) {
    let mut all = [&["--lease-seconds", "2"], flags].concat();
    if !flags.contains(&"--database-timeout-seconds") {
        all.extend(["--database-timeout-seconds", "1"]);
    }
    scene.workers.push(Worker::spawn(proxy.url(), &all));
}

/// What names a statement on the wire: the first line of its file.
fn marker(statement: &str) -> &'static str {
    let (_, sql) = query::ALL.iter().find(|(name, _)| *name == statement).expect("a statement of this name");
    sql.lines().next().unwrap()
}
