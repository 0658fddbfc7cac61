//! TLS: participants with authorities of their own and client certificates, and Postgres with both.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use pgsaga_tests::authority::{Authority, Issued};
use pgsaga_tests::command::run_as;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Cluster, Worker, eventually};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::participants::{NO_LOOPBACK, Participants};

/// TLS in front of a participant. It ends with the test.
struct Front {
    port: u16,
    task: JoinHandle<()>,
}

impl Front {
    /// With this certificate; whoever calls needs one of `clients`, if there are any to be asked
    /// for.
    async fn start(to: SocketAddr, issued: &Issued, clients: Option<&Authority>) -> Front {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.der()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (chain, key) = issued.der();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A handshake that fails is what some tests are about.
                    let Ok(mut outside) = acceptor.accept(stream).await else { return };
                    let mut inside = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Front { port, task }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the first try of a saga of one step came to, with its message.
async fn first_try(scene: &Scene, gid: &str, url: &str) -> (String, String) {
    scene.saga(gid).step("a").with("action", json!(url)).insert().await;
    eventually(PATIENCE, &format!("a try of {gid}"), async || {
        sqlx::query_as(
            "select outcome, coalesce(message, '') from pgsaga.saga_timeline
             where gid = $1 and kind = 'attempt' order by seq limit 1",
        )
        .bind(gid)
        .fetch_optional(scene.pool())
        .await
        .unwrap()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_participant_is_trusted_by_its_own_authority_alone() {
    let mut scene = Scene::new().await;
    let (theirs, another) = (Authority::new("theirs"), Authority::new("another"));
    let front = Front::start(scene.participant.address(), &theirs.server("localhost"), None).await;
    let wrong_name = Front::start(scene.participant.address(), &theirs.server("pay.example"), None).await;
    let entry = |name: &str, front: &Front, ca: &str| {
        format!("[participant.{name}]\nurl = \"{}\"\n{ca}\n", front.url())
    };
    let participants = Participants::new(
        &[
            entry("good", &front, "ca_file = \"theirs.pem\""),
            entry("another", &front, "ca_file = \"another.pem\""),
            entry("system", &front, ""),
            entry("wrong-name", &wrong_name, "ca_file = \"theirs.pem\""),
        ]
        .concat(),
    );
    std::fs::write(participants.path("theirs.pem"), theirs.pem()).unwrap();
    std::fs::write(participants.path("another.pem"), another.pem()).unwrap();
    scene.start_worker(&[&NO_LOOPBACK[..], &["--participants", &participants.file()]].concat()).await;
    assert_eq!(first_try(&scene, "good", "participant:good/good/a").await.0, "success");
    for name in ["another", "system", "wrong-name"] {
        let (outcome, message) = first_try(&scene, name, &format!("participant:{name}/{name}/a")).await;
        assert_eq!(outcome, "unsent", "{name}: {message}");
        assert!(message.contains("certificate"), "{name}: {message}");
    }
    assert_eq!(scene.participant.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_for_all_participants_is_trusted_beside_the_systems() {
    let mut scene = Scene::new().await;
    let theirs = Authority::new("theirs");
    let front = Front::start(scene.participant.address(), &theirs.server("localhost"), None).await;
    let participants = Participants::new(&format!("[participant.p]\nurl = \"{}\"", front.url()));
    let (file, ca) = (participants.file(), participants.path("theirs.pem").display().to_string());
    std::fs::write(&ca, theirs.pem()).unwrap();
    let flags = ["--allow-address", "127.0.0.0/8,::1", "--participants", &file];
    scene.start_worker(&flags).await;
    for (gid, url) in [("p0", format!("{}/x", front.url())), ("n0", "participant:p/x".to_owned())] {
        let (outcome, message) = first_try(&scene, gid, &url).await;
        assert!(outcome == "unsent" && message.contains("certificate"), "{gid}: {outcome} {message}");
    }
    scene.workers.clear();
    scene.start_worker(&[&flags[..], &["--participant-ca", &ca]].concat()).await;
    for (gid, url) in [("p1", format!("{}/x", front.url())), ("n1", "participant:p/x".to_owned())] {
        assert_eq!(first_try(&scene, gid, &url).await.0, "success", "{gid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_asks_for_a_certificate_gets_the_workers() {
    let mut scene = Scene::new().await;
    let (theirs, ours, another) =
        (Authority::new("theirs"), Authority::new("ours"), Authority::new("another"));
    let front = Front::start(scene.participant.address(), &theirs.server("localhost"), Some(&ours)).await;
    let entry = |name: &str, lines: &str| {
        format!("[participant.{name}]\nurl = \"{}\"\nca_file = \"theirs.pem\"\n{lines}\n", front.url())
    };
    let own = "client_cert_file = \"ours.pem\"\nclient_key_file = \"ours-key.pem\"";
    let wrong = "client_cert_file = \"another.pem\"\nclient_key_file = \"another-key.pem\"";
    let participants =
        Participants::new(&[entry("own", own), entry("wrong", wrong), entry("none", "")].concat());
    let folder = participants.path("");
    std::fs::write(folder.join("theirs.pem"), theirs.pem()).unwrap();
    ours.client("pgsaga").write(&folder, "ours");
    another.client("pgsaga").write(&folder, "another");
    scene.start_worker(&[&NO_LOOPBACK[..], &["--participants", &participants.file()]].concat()).await;
    assert_eq!(first_try(&scene, "own", "participant:own/x").await.0, "success");
    for name in ["wrong", "none"] {
        // TLS 1.3 tells a client that it was refused only after its first bytes.
        let (outcome, message) = first_try(&scene, name, &format!("participant:{name}/x")).await;
        assert!(["unsent", "unknown"].contains(&outcome.as_str()), "{name}: {outcome} {message}");
    }
    assert_eq!(scene.participant.calls().len(), 1);
}

/// Turns TLS on in a running server, which then takes from TCP only who has a certificate of
/// `clients`.
async fn ask_for_certificates(scene: &Scene, server: &Issued, clients: &Authority) {
    let data: String = sqlx::query_scalar("show data_directory").fetch_one(scene.pool()).await.unwrap();
    let data = Path::new(&data);
    let owner = std::fs::metadata(data).unwrap();
    let (certificate, key) = server.write(data, "server");
    let ca = data.join("clients.pem");
    std::fs::write(&ca, clients.pem()).unwrap();
    let hba = data.join("pg_hba.conf");
    std::fs::write(&hba, "local all all trust\nhostssl all all 127.0.0.1/32 cert\n").unwrap();
    for file in [&certificate, &key, &ca, &hba] {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    for (name, value) in [
        ("ssl_cert_file", certificate.display().to_string()),
        ("ssl_key_file", key.display().to_string()),
        ("ssl_ca_file", ca.display().to_string()),
        ("ssl", "on".to_owned()),
    ] {
        let set = format!("alter system set {name} = '{value}'");
        scene.pool().execute(AssertSqlSafe(set)).await.unwrap();
    }
    scene.pool().execute("select pg_reload_conf()").await.unwrap();
    eventually(PATIENCE, "the server speaks TLS", async || {
        let ssl: String = sqlx::query_scalar("show ssl").fetch_one(scene.pool()).await.unwrap();
        (ssl == "on").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_to_postgres_is_verified_both_ways_by_what_the_url_names() {
    let cluster = Cluster::own(false, true).await;
    let mut scene = Scene::on(&cluster).await;
    let (servers, clients, another) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("another"));
    ask_for_certificates(&scene, &servers.server("localhost"), &clients).await;
    scene.pool().execute("create role fleet login in role pgsaga_worker, pgsaga_reader").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = |authority: &Authority, name: &str| {
        let file = folder.path().join(format!("{name}-ca.pem"));
        std::fs::write(&file, authority.pem()).unwrap();
        file.display().to_string()
    };
    let (good_ca, wrong_ca) = (ca(&servers, "servers"), ca(&another, "another"));
    let certificate = |authority: &Authority, name: &str, file: &str| {
        let (certificate, key) = authority.client(name).write(folder.path(), file);
        format!("&sslcert={}&sslkey={}", certificate.display(), key.display())
    };
    let good = certificate(&clients, "fleet", "good");
    let (of_others, of_another_user) =
        (certificate(&another, "fleet", "of-others"), certificate(&clients, "somebody", "somebody"));
    let tcp = scene.db.tcp_url().unwrap();
    let port = tcp.split("127.0.0.1:").nth(1).unwrap().split('/').next().unwrap();
    let name = scene.db.name();
    let url = |host: &str, ca: &str, certificate: &str| {
        format!("postgres://fleet@{host}:{port}/{name}?sslmode=verify-full&sslrootcert={ca}{certificate}")
    };

    let verified = url("localhost", &good_ca, &good);
    for (what, url) in [
        ("another authority", url("localhost", &wrong_ca, &good)),
        ("another name", url("127.0.0.1", &good_ca, &good)),
        ("no certificate", url("localhost", &good_ca, "")),
        ("a certificate of another authority", url("localhost", &good_ca, &of_others)),
        ("another user's certificate", url("localhost", &good_ca, &of_another_user)),
        ("no TLS", format!("postgres://fleet@127.0.0.1:{port}/{name}?sslmode=disable")),
    ] {
        let said = run_as(&url, &["list"]);
        assert_eq!(said.code, Some(5), "{what}: {}{}", said.out, said.err);
    }
    run_as(&verified, &["list"]).fine();

    scene.workers.push(Worker::spawn(&verified, &["--lease-seconds", "2"]));
    scene.workers[0].ready().await;
    scene.saga("s").step("a").insert().await;
    scene.expect("s", "succeeded", None, &["a action"]).await;
    let links: Vec<(bool, Option<String>)> = sqlx::query_as(
        "select ssl, client_dn from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'fleet'",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    assert!(!links.is_empty());
    for (ssl, name) in &links {
        assert!(*ssl && name.as_deref().is_some_and(|name| name.contains("CN=fleet")), "{links:?}");
    }
    // The listening connection has it, too.
    eventually(PATIENCE, "the worker listens", async || {
        (scene.workers[0].metric("pgsaga_listener_up").await == Some(1.0)).then_some(())
    })
    .await;
    let log = scene.workers[0].log().join("\n");
    assert!(!log.contains("is not verified") && !log.contains("BEGIN"), "{log}");
}
