//! Behind PgBouncer in transaction mode.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;
use std::time::Duration;

use pgsaga_producer::{Producer, Saga, SagaStatus, Step, Waiter};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Worker, eventually, tool};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// A PgBouncer of the test's own; dropping it ends it.
struct PgBouncer {
    process: Child,
    _folder: tempfile::TempDir,
    url: String,
}

/// Settings of a session that PgBouncer drops, or refuses as long as nothing says to drop them.
const DROPS_SETTINGS: &str = "ignore_startup_parameters = options,extra_float_digits\n";
const REFUSES_SETTINGS: &str = "";

impl PgBouncer {
    async fn start(scene: &Scene) -> PgBouncer {
        PgBouncer::start_with(scene, REFUSES_SETTINGS).await
    }

    /// With a line more in its configuration.
    async fn start_with(scene: &Scene, more: &str) -> PgBouncer {
        let program = tool("pgbouncer");
        let behind = scene.db.tcp_url().expect("a cluster with TCP");
        let (address, database) = behind.split_once("postgres@").unwrap().1.split_once('/').unwrap();
        let database = database.split('?').next().unwrap();
        let (host, port) = address.split_once(':').unwrap();
        let own_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("users.txt");
        fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        let ini = folder.path().join("pgbouncer.ini");
        fs::write(
            &ini,
            format!(
                "[databases]\n{database} = host={host} port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own_port}\n\
                 unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 200\n{more}",
                users.display()
            ),
        )
        .unwrap();
        // It refuses to run as root; the account that runs Postgres will do.
        let mut command = if nix::unistd::geteuid().is_root() {
            for path in [folder.path(), &users, &ini] {
                let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs::set_permissions(path, everyone).unwrap();
            }
            let mut command = Command::new(program);
            command.args(["-u", "nobody"]);
            command
        } else {
            Command::new(program)
        };
        let process = command
            .args(["--quiet"])
            .arg(&ini)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("postgres://postgres@127.0.0.1:{own_port}/{database}");
        let bouncer = PgBouncer { process, _folder: folder, url };
        eventually(PATIENCE, "PgBouncer answers", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", own_port)).await.ok().map(drop)
        })
        .await;
        bouncer
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn run_sagas(scene: &Scene) {
    for n in 0..40 {
        let saga = scene.saga(&format!("s-{n}")).step("a").step("b");
        let saga = if n % 4 == 0 {
            saga.action(Behaviour::Refuse("no".into()))
        } else {
            saga.action(Behaviour::Unknown(1))
        };
        saga.insert().await;
    }
    scene.all_ended(PATIENCE).await;
    assert_eq!((scene.count("succeeded").await, scene.count("failed").await), (30, 10));
    scene.healthy().await;
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "needs pgbouncer: apt-get install pgbouncer")]
async fn a_worker_runs_behind_a_transaction_pooler_by_polling_or_with_a_direct_url() {
    let cluster = Cluster::own(false, true).await;
    let mut scene = Scene::on(&cluster).await;
    let bouncer = PgBouncer::start(&scene).await;
    scene.workers.push(Worker::spawn(&bouncer.url, &["--pooled", "--lease-seconds", "2"]));
    scene.workers[0].ready().await;
    run_sagas(&scene).await;
    for class in ["connection", "other", "data"] {
        assert_eq!(
            scene.metric(&format!("pgsaga_database_errors_total{{class=\"{class}\"}}")).await,
            0.0,
            "{class}"
        );
    }
    assert_eq!(scene.metric("pgsaga_listener_up").await, 0.0);
    scene.workers[0].terminate();
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));

    let direct = scene.db.url().to_owned();
    scene.workers[0] =
        Worker::spawn(&bouncer.url, &["--pooled", "--direct-database-url", &direct, "--lease-seconds", "2"]);
    scene.workers[0].ready().await;
    eventually(Duration::from_secs(5), "LISTEN stands", async || {
        (scene.metric("pgsaga_listener_up").await == 1.0).then_some(())
    })
    .await;
    scene.saga("woken").step("a").insert().await;
    scene.expect("woken", "succeeded", None, &["a action"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_pgbouncer), ignore = "needs pgbouncer: apt-get install pgbouncer")]
async fn producers_work_behind_a_transaction_pooler() {
    let cluster = Cluster::own(false, true).await;
    let mut scene = Scene::on(&cluster).await;
    let bouncer = PgBouncer::start(&scene).await;
    scene.start_worker(&[]).await;
    let options = PgConnectOptions::from_str(&bouncer.url).unwrap().extra_float_digits(None);
    let pool = PgPoolOptions::new().max_connections(40).connect_with(options).await.unwrap();
    let producer = Producer::behind_pgbouncer();
    let waiter = Waiter::with(producer, pool.clone());
    let url = scene.participant.url("/pooled");
    // Many more clients than the pooler has server connections.
    let clients = (0..40).map(|client| {
        let (pool, waiter, url) = (pool.clone(), waiter.clone(), url.clone());
        tokio::spawn(async move {
            for n in 0..5 {
                let saga =
                    Saga::new().gid(format!("p-{client}-{n}")).unwrap().step(Step::new("pay").action(&url));
                let mut transaction = pool.begin().await.unwrap();
                let submitted = producer.submit(&mut *transaction, &saga).await.unwrap();
                assert!(submitted.created);
                transaction.commit().await.unwrap();
                assert_eq!(waiter.wait(submitted.gid, PATIENCE).await.unwrap().status, SagaStatus::Succeeded);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(scene.count("succeeded").await, 200);
    scene.healthy().await;
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "needs pgbouncer: apt-get install pgbouncer")]
async fn a_direct_url_that_leads_through_the_pooler_is_noticed_said_once_and_counts_as_none() {
    let cluster = Cluster::own(false, true).await;
    let mut scene = Scene::on(&cluster).await;
    for (nth, more) in [DROPS_SETTINGS, REFUSES_SETTINGS].into_iter().enumerate() {
        let bouncer = PgBouncer::start_with(&scene, more).await;
        let flags = ["--pooled", "--direct-database-url", &bouncer.url, "--lease-seconds", "2"];
        scene.workers = vec![Worker::spawn(&bouncer.url, &flags)];
        scene.workers[0].ready().await;
        let noticed = "--direct-database-url leads through a pooler in transaction mode";
        scene.workers[0].wait_for_log(noticed, PATIENCE).await;
        let gid = format!("polled-{nth}");
        scene.saga(&gid).step("a").insert().await;
        scene.expect(&gid, "succeeded", None, &["a action"]).await;
        assert_eq!(scene.metric("pgsaga_listener_up").await, 0.0);
        let locks: i64 = sqlx::query_scalar("select count(*) from pg_locks where locktype = 'advisory'")
            .fetch_one(scene.pool())
            .await
            .unwrap();
        assert_eq!(locks, 0, "a lock is left to a session of the pooler");
        scene.workers[0].terminate();
        assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));
        let log = scene.workers[0].log();
        assert_eq!(log.iter().filter(|line| line.contains(noticed)).count(), 1, "{log:#?}");
        assert!(!log.iter().any(|line| line.contains("\"ERROR\"")), "{log:#?}");
    }
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "needs pgbouncer: apt-get install pgbouncer")]
async fn a_worker_that_is_not_told_of_the_pooler_does_not_start() {
    let cluster = Cluster::own(false, true).await;
    let scene = Scene::on(&cluster).await;
    for more in [DROPS_SETTINGS, REFUSES_SETTINGS] {
        let bouncer = PgBouncer::start_with(&scene, more).await;
        let mut worker = Worker::spawn(&bouncer.url, &[]);
        assert_eq!(worker.wait_exit(PATIENCE).await.code(), Some(2), "{:#?}", worker.log());
        let log = worker.log().join("\n");
        assert!(log.contains("leads through a pooler in transaction mode; set --pooled"), "{log}");
    }
}
