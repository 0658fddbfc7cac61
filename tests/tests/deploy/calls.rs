//! Workers that are started as the files of the deployment say call participants with private
//! addresses. A plain URL would reach public addresses only.

use std::fs;

use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Worker, scene::PATIENCE};
use tempfile::TempDir;

use crate::files::read;

const WORKER: &str = "docs/deploy/kubernetes/worker.yaml";
const README: &str = "docs/deploy/README.md";

/// A file of participants, all of which are the scene's.
fn participants(scene: &Scene, file: &str, folder: &TempDir) -> String {
    let mut here = String::new();
    for line in file.lines() {
        let is_url = line.starts_with("url = ");
        here +=
            &if is_url { format!("url = \"{}\"\n", scene.participant.url("")) } else { format!("{line}\n") };
    }
    assert!(here.contains("[participant.stock]\n"), "{file}");
    let path = folder.path().join("participants.toml");
    fs::write(&path, here).unwrap();
    path.display().to_string()
}

/// A worker with these variables calls `participant:stock`.
async fn calls_stock(mut scene: Scene, variables: &[(String, String)]) {
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // Takes the place of what the harness would allow.
    let flags = ["--allow-address", "192.0.2.0/24"];
    scene.workers.push(Worker::spawn_with_env(scene.db.url(), &flags, &variables));
    scene.workers[0].ready().await;
    let steps = r#"[{"name": "stock", "action": "participant:stock/reserve"}]"#;
    sqlx::query("insert into pgsaga.saga (gid, steps) values ('s', $1::jsonb)")
        .bind(steps)
        .execute(scene.pool())
        .await
        .unwrap();
    scene.participant.wait_for_calls(1, PATIENCE).await;
    assert_eq!(scene.ended("s").await, ("succeeded".to_owned(), None));
}

#[tokio::test]
async fn the_workers_of_kubernetes_call_the_participants_of_their_config_map() {
    let scene = Scene::new().await;
    let folder = TempDir::new().unwrap();
    let worker = read(WORKER);
    let mut variables: Vec<(String, String)> = worker
        .lines()
        .filter_map(|line| {
            let (name, value) =
                line.trim().strip_prefix("- {name: PGSAGA_")?.strip_suffix('}')?.split_once(", value: ")?;
            Some((format!("PGSAGA_{name}"), value.trim_matches('"').to_owned()))
        })
        .collect();
    let file = variables.iter_mut().find(|(name, _)| name == "PGSAGA_PARTICIPANTS").unwrap();
    // What is mounted there is made of the file of that name.
    let (mount, name) = file.1.rsplit_once('/').unwrap();
    assert!(worker.contains(&format!("- {{name: participants, mountPath: {mount}, readOnly: true}}")));
    assert!(worker.contains("- name: participants\n          configMap: {name: pgsaga-participants}\n"));
    let kustomization = read("docs/deploy/kubernetes/kustomization.yaml");
    assert!(
        kustomization
            .contains(&format!("- name: pgsaga-participants\n    namespace: pgsaga\n    files: [{name}]\n"))
    );
    file.1 = participants(&scene, &read(&format!("docs/deploy/kubernetes/{name}")), &folder);
    calls_stock(scene, &variables).await;
}

/// The file that a reader of the page makes at this path.
fn installed(path: &str) -> String {
    let page = read(README);
    let (_, rest) = page.split_once(&format!("/dev/stdin {path} <<'END'\n")).unwrap();
    rest.split_once("END\n").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_workers_of_systemd_call_the_participants_of_their_file() {
    let scene = Scene::new().await;
    let folder = TempDir::new().unwrap();
    let file = "/etc/pgsaga/participants.toml";
    let here = participants(&scene, &installed(file), &folder);
    let variables: Vec<(String, String)> = installed("/etc/pgsaga/worker.env")
        .lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.replace(file, &here)))
        .collect();
    assert_eq!(variables, [("PGSAGA_PARTICIPANTS".to_owned(), here)]);
    calls_stock(scene, &variables).await;
}

#[test]
fn the_workers_of_compose_may_call_the_addresses_of_its_network() {
    let compose = read("compose.yaml");
    let behind = |key: &str| {
        let (_, rest) = compose.split_once(key).unwrap();
        rest.lines().next().unwrap().trim().to_owned()
    };
    assert_eq!(behind("PGSAGA_ALLOW_ADDRESSES: "), behind("- subnet: "));
}
