//! Traces, of the build that has them: one span a call, in the producer's trace; and no call waits
//! for a collector.

use std::time::Duration;

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Participant, Worker, binary, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

fn worker(scene: &Scene, collector: &str) -> Worker {
    let program = &binary::failing().pgsaga;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    Worker::spawn_program(program, scene.db.url(), &["--lease-seconds", "2"], &env)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_a_span_in_the_trace_of_whoever_inserted_the_saga() {
    let scene = Scene::new().await;
    let collector = Participant::start().await;
    let mut worker = worker(&scene, &collector.url(""));
    worker.ready().await;
    let headers = format!("'{{\"traceparent\": \"00-{TRACE}-{SPAN}-01\"}}'");
    let saga = scene
        .saga("traced")
        .step("pay")
        .action(Behaviour::Sequence(vec![Behaviour::Status(503), Behaviour::Ok]));
    saga.column("headers", &headers).insert().await;
    scene.ended("traced").await;
    scene.saga("untold").step("pay").insert().await;
    scene.ended("untold").await;

    // Each try is a span of its own, of which what the participant does is a child.
    let mut spans = Vec::new();
    for call in scene.participant.calls_for("traced") {
        let parts: Vec<&str> = call.headers["traceparent"].to_str().unwrap().split('-').collect();
        assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"));
        assert_ne!(parts[2], SPAN);
        spans.push(parts[2].to_owned());
    }
    assert_eq!(spans.len(), 2);
    assert_ne!(spans[0], spans[1]);
    let own = scene.participant.calls_for("untold")[0].headers["traceparent"].to_str().unwrap().to_owned();
    assert!(!own.contains(TRACE), "a trace of its own");

    worker.terminate();
    assert_eq!(worker.wait_exit(PATIENCE).await.code(), Some(0));
    let exported: Vec<_> = collector.calls().into_iter().filter(|call| call.path == "/v1/traces").collect();
    for (what, part) in [
        ("the trace", bytes(TRACE)),
        ("the producer's span", bytes(SPAN)),
        ("the first try", bytes(&spans[0])),
        ("the second try", bytes(&spans[1])),
        ("the gid", b"traced".to_vec()),
        ("the outcome", b"unknown".to_vec()),
        ("the service", b"pgsaga".to_vec()),
        ("the other saga", b"untold".to_vec()),
    ] {
        assert!(exported.iter().any(|call| contains(&call.body, &part)), "{what} was not exported");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_waits_for_a_collector_and_no_drain() {
    let scene = Scene::new().await;
    let collector = Participant::start().await;
    collector.on("/v1/traces", "", Behaviour::Hang);
    let mut worker = worker(&scene, &collector.url(""));
    worker.ready().await;
    for nth in 0..50 {
        scene.saga(&format!("s{nth}")).step("pay").insert().await;
    }
    scene.all_ended(PATIENCE).await;
    eventually(PATIENCE, "spans are on their way", async || (!collector.calls().is_empty()).then_some(()))
        .await;
    scene.saga("after").step("pay").insert().await;
    assert_eq!(scene.ended("after").await.0, "succeeded");
    worker.terminate();
    assert_eq!(worker.wait_exit(Duration::from_secs(30)).await.code(), Some(0));
    scene.healthy().await;
}

#[tokio::test]
async fn a_build_without_traces_says_so_when_it_is_asked_for_some() {
    let scene = Scene::new().await;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
    let worker = Worker::spawn_with_env(scene.db.url(), &[], &env);
    worker.wait_for_log("needs the feature otlp", PATIENCE).await;
}
