//! Named participants: the worker's own configuration says where they are.

use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Database, eventually};
use serde_json::json;

use crate::participants::{NO_LOOPBACK, Participants, scene_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_step_calls_a_participant_by_its_name_and_so_does_its_compensation() {
    let (scene, _participants) = scene_with(|participant| {
        // A path of its own is in front of the step's.
        Participants::new(&format!(
            "[participant.stock]\nurl = \"{}\"\nlimit = 4\n[participant.\"pay.eu\"]\nurl = \"{}\"",
            participant.url("/api/"),
            participant.url("")
        ))
    })
    .await;
    scene.participant.on("/charge", "action", Behaviour::Refuse("no money".into()));
    let saga = scene.saga("s").step("stock");
    let saga = saga.with("action", json!("participant:stock/v1/reserve?sku=7&x"));
    let saga = saga.with("compensate", json!("participant:stock/v1/release"));
    saga.step("payment").with("action", json!("participant:pay.eu/charge")).insert().await;
    let ops = ["stock action", "payment action", "stock compensate"];
    scene.expect("s", "failed", Some("payment: no money"), &ops).await;
    let paths: Vec<_> = scene.participant.calls_for("s").into_iter().map(|call| call.path).collect();
    assert_eq!(paths, ["/api/v1/reserve", "/charge", "/api/v1/release"]);
    let stock = &scene.participant.calls_for("s")[0];
    assert_eq!((stock.key.as_str(), stock.gid.as_str()), ("s/stock/action", "s"));
    assert_eq!(stock.header("webhook-signature"), "", "without secrets nothing is signed");

    // It has one name in filters, whichever way a saga was made.
    let listed = |participant: &str| {
        run(&scene.db, &["list", "--json", "--participant", participant]).fine().contains("\"s\"")
    };
    assert!(listed("participant:stock") && listed("participant:pay.eu"));
    assert!(!listed("stock") && !listed("participant:pay"));
}

/// Each way in which a task gets its participant: queued, chained, retried, undone, rescued.
/// Of two values of one key some readers take the first: the call would be taken for another saga's
/// op. What needs no decoding the INSERT refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_brings_another_sagas_op_is_not_called() {
    let (scene, _participants) = scene_with(|participant| Participants::of("p", participant, "")).await;
    for (gid, query) in [("plain", "gid=victim"), ("escaped", "%67id=victim"), ("op", "a;o%70=compensate")] {
        let mut open = scene.pool().begin().await.unwrap();
        let steps = json!([{"name": "a", "action": format!("participant:p/{gid}/a")}]);
        let insert =
            sqlx::query("insert into pgsaga.saga (gid, steps) values ($1, $2)").bind(gid).bind(steps);
        insert.execute(&mut *open).await.unwrap();
        let overwrite = "update pgsaga.saga set steps = jsonb_set(steps, '{0,action}', $1) where gid = $2";
        let url = json!(format!("http://stock.example/{gid}/a?{query}"));
        sqlx::query(overwrite).bind(url).bind(gid).execute(&mut *open).await.unwrap();
        open.commit().await.unwrap();
        let (status, reason) = scene.ended(gid).await;
        assert_eq!(status, "failed", "{query}: {reason:?}");
        let says = "a: the URL's query has gid, trans_type, branch_id or op, which workers add";
        assert_eq!(reason.as_deref(), Some(says), "{query}");
    }
    assert_eq!(scene.participant.calls().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_bears_the_name_of_its_participant_wherever_it_comes_from() {
    let (mut scene, participants) = scene_with(|participant| Participants::of("p", participant, "")).await;
    let named = |gid: &str, step: &str| json!(format!("participant:p/{gid}/{step}"));
    let waiting = async |scene: &Scene, gid: &str, op: &str| {
        eventually(PATIENCE, &format!("{gid} waits for the next try of its {op}"), async || {
            let task: Option<String> = sqlx::query_scalar(
                "select t.participant from pgsaga.task t join pgsaga.saga s on s.id = t.saga_id
                 where s.gid = $1 and t.op = $2 and t.worker is null and t.attempt > 1",
            )
            .bind(gid)
            .bind(op)
            .fetch_optional(scene.pool())
            .await
            .unwrap();
            task
        })
        .await
    };
    // Its retry, and its compensation's.
    let saga = scene.saga("retried").column("retry_interval", "'1 hour'").step("a");
    let saga = saga.with("action", named("retried", "a")).action(Behaviour::Unknown(1));
    saga.with("compensate", named("retried", "a")).compensate(Behaviour::Unknown(1)).insert().await;
    assert_eq!(waiting(&scene, "retried", "action").await, "participant:p");
    run(&scene.db, &["abort", "retried", "--reason", "enough"]).fine();
    assert_eq!(waiting(&scene, "retried", "compensate").await, "participant:p");

    // What a dead worker held: rescue reads the URL.
    let saga = scene.saga("rescued").column("request_timeout", "'60 seconds'").step("a");
    let saga = saga.with("action", named("rescued", "a")).action(Behaviour::Sequence(vec![Behaviour::Hang]));
    saga.insert().await;
    eventually(PATIENCE, "it is called", async || {
        (!scene.participant.calls_for("rescued").is_empty()).then_some(())
    })
    .await;
    scene.workers[0].kill9();
    scene.workers.clear();
    // One that does not know the name, so that the task is seen after its rescue.
    scene.start_worker(&NO_LOOPBACK).await;
    eventually(PATIENCE, "it is rescued", async || {
        scene.history("rescued").await.contains(&"a action 1 unknown".to_owned()).then_some(())
    })
    .await;
    assert_eq!(waiting(&scene, "rescued", "action").await, "participant:p");
    scene.workers.clear();
    scene.start_worker(&[&NO_LOOPBACK[..], &["--participants", &participants.file()]].concat()).await;
    assert_eq!(scene.ended("rescued").await.0, "succeeded");

    // What a person has tried again: the database reads the URL.
    let saga = scene.saga("stuck").step("a").with("action", json!(""));
    let saga = saga.with("compensate", named("stuck", "a")).compensate(Behaviour::Refuse("never".into()));
    saga.step("b").with("action", named("stuck", "b")).action(Behaviour::Refuse("no".into())).insert().await;
    assert_eq!(scene.ended("stuck").await.0, "stuck");
    let chosen = ["retry", "--stuck", "--participant", "participant:p", "--dry-run"];
    let chosen = run(&scene.db, &chosen);
    assert!(format!("{}{}", chosen.out, chosen.err).contains("1 saga chosen"), "{chosen:?}");
    scene.workers.clear();
    run(&scene.db, &["retry", "stuck"]).fine();
    assert_eq!(waiting(&scene, "stuck", "compensate").await, "participant:p");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_worker_knows_waits_with_a_message_until_one_does() {
    let mut scene = Scene::new().await;
    scene.start_worker(&NO_LOOPBACK).await;
    scene.saga("s").step("a").with("action", json!("participant:p/s/a")).insert().await;
    let said = scene.workers[0].wait_for_log("a call was denied", PATIENCE).await;
    let event: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        event["fields"]["reason"],
        "not called: this worker has no participant \"p\", neither in the file of --participants nor in its process"
    );
    assert_eq!(scene.history("s").await, Vec::<String>::new(), "no try was made");
    assert_eq!(scene.status("s").await.unwrap().0, "submitted", "nothing is lost, and nothing is undone");
    scene.healthy().await;

    let participants = Participants::of("p", &scene.participant, "");
    scene.workers.clear();
    scene.start_worker(&[&NO_LOOPBACK[..], &["--participants", &participants.file()]].concat()).await;
    scene.expect("s", "succeeded", None, &["a action"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_the_file_bounds_the_calls_at_once() {
    let (scene, _participants) =
        scene_with(|participant| Participants::of("p", participant, "limit = 2")).await;
    let gate = pgsaga_tests::Gate::new();
    scene.participant.ruled_by({
        let gate = gate.clone();
        move |_| Behaviour::Gate(gate.clone())
    });
    for nth in 0..6 {
        scene.saga(&format!("s{nth}")).step("a").with("action", json!("participant:p/x")).insert().await;
    }
    scene.participant.wait_for_calls(2, PATIENCE).await;
    // Others are not: the worker has room for them.
    scene.saga("other").step("a").with("action", json!("")).insert().await;
    scene.ended("other").await;
    assert_eq!(scene.participant.calls().len(), 2);
    gate.open();
    for nth in 0..6 {
        assert_eq!(scene.ended(&format!("s{nth}")).await.0, "succeeded");
    }
}

#[tokio::test]
async fn a_bad_file_of_participants_ends_a_worker_at_its_start() {
    let db = Database::new().await;
    for (lines, flags, says) in [
        (
            "[participant.p]\nurl = \"https://p\"\nsecret = \"whsec_c2VjcmV0\"",
            &[][..],
            "unknown field `secret`",
        ),
        ("[participant.p]\nurl = \"p\"", &[], "participant \"p\": url: "),
        ("[participant.p]\nurl = \"https://p\"\nsecret_files = [\"nowhere\"]", &[], "nowhere: No such file"),
        ("[participant.p]\nurl = \"https://p\"\nca_file = \"old\"", &[], "old: no certificates in PEM"),
        (
            "[participant.p]\nurl = \"https://p\"\nlimit = 2",
            &["--participant-limit", "participant:p=3"],
            "participant:p: found a limit of its own and one by --participant-limit",
        ),
    ] {
        let participants = Participants::new(lines);
        let file = participants.file();
        let args = [&["work", "--listen", "127.0.0.1:0", "--participants", &file][..], flags].concat();
        let said = run(&db, &args);
        assert_eq!(said.code, Some(2), "{lines}\n{}", said.err);
        assert!(said.err.contains(says) && !said.err.contains("c2VjcmV0"), "{lines}\n{}", said.err);
    }
    let said = run(&db, &["work", "--listen", "127.0.0.1:0", "--participant-ca", "/nowhere.pem"]);
    assert!(said.code == Some(2) && said.err.contains("/nowhere.pem: No such file"), "{}", said.err);
}
