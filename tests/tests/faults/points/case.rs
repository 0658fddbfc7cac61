use std::fmt;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Output;

use nix::sys::signal::Signal;
use pgsaga_tests::oracle::Fate;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Gate, Participant, Worker, binary, eventually};
use serde_json::json;
use tempfile::TempDir;

use super::STEPS;
use super::situation::Situation;

/// Of workers that delete what finished longer ago.
const RETENTION: &[&str] = &["--retention", "1h"];
const UNSERVED: &str = "unserved";

/// Which of the saga's halves is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// One death.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) point: &'static str,
    pub(super) situation: Situation,
    /// The step that is being called, from 1.
    pub(super) step: usize,
    pub(super) direction: Direction,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} step-{} {}", self.point, self.step, self.op())
    }
}

impl Case {
    fn op(&self) -> &'static str {
        match self.direction {
            Direction::Forward => "action",
            Direction::Backward => "compensate",
        }
    }

    fn step_name(&self) -> String {
        format!("step-{}", self.step)
    }

    pub(super) async fn run(self, cluster: &Cluster) {
        let mut stage = Stage::set(self, cluster).await;
        match self.situation {
            Situation::Working | Situation::Parallel => {
                stage.start_mortal().await;
                stage.called().await;
                stage.arm();
                stage.gate.open();
                stage.dead().await;
            }
            Situation::Meanwhile => {
                stage.start_mortal().await;
                stage.called().await;
                stage.arm();
                stage.dead().await;
            }
            Situation::Rescuing | Situation::Suspect => {
                stage.scene.start_worker(&[]).await;
                stage.called().await;
                stage.scene.workers[0].kill9();
                stage.scene.workers.clear();
                stage.gate.open();
                if self.situation == Situation::Suspect {
                    stage.sql("update pgsaga.task set lost = 3").await;
                }
                stage.mortal_dies().await;
            }
            Situation::Draining => {
                stage.start_mortal().await;
                stage.called().await;
                // Of another participant: the first is taken for silent once it has not answered
                // for a second.
                stage.other_participant.accept_again().await;
                let url = stage.other_participant.url("/other");
                stage.scene.saga("other").step("pay").with("action", json!(url)).insert().await;
                stage.wait_for("the other task is held", "select from pgsaga.task join pgsaga.saga s on s.id = saga_id where gid = 'other' and worker is not null").await;
                stage.arm();
                let mortal = stage.mortal.as_mut().unwrap();
                mortal.terminate();
                if self.point != "drain:before" {
                    mortal.wait_for_log("draining", PATIENCE).await;
                }
                stage.gate.open();
                stage.dead().await;
            }
            Situation::Parking => {
                stage.mortal_dies().await;
                stage.other_participant.accept_again().await;
            }
            // A deadline could have passed before the worker started, and then no worker looks for
            // the participant.
            Situation::Unserved => {
                stage.insert_unserved("null").await;
                stage.mortal_dies().await;
                stage.person(&["abort", UNSERVED, "--reason", "nobody serves it"]).await;
            }
            Situation::Overdue => {
                stage.insert_unserved("'2 seconds'").await;
                stage.mortal_dies().await;
            }
            Situation::Purging => {
                stage.mortal_dies().await;
                stage.scene.start_worker(RETENTION).await;
                stage.old_are_gone().await;
            }
            Situation::Deciding(arguments) => {
                stage.scene.start_worker(&[]).await;
                stage.called().await;
                if arguments[0] == "resume" {
                    stage.person(&["pause", "default"]).await;
                }
                stage.decide(arguments).await;
                if arguments[0] == "pause" {
                    stage.person(&["resume", "default"]).await;
                }
                stage.gate.open();
            }
            Situation::Changed(change) => {
                stage.scene.start_worker(&[]).await;
                stage.called().await;
                stage.person(&["pause", "default"]).await;
                stage.gate.open();
                stage
                    .wait_for("the next try is queued", "select from pgsaga.task where worker is null")
                    .await;
                stage.scene.workers[0].terminate();
                stage.scene.workers[0].wait_exit(PATIENCE).await;
                stage.scene.workers.clear();
                stage.sql(change).await;
                stage.person(&["resume", "default"]).await;
                stage.mortal_dies().await;
                stage.scene.start_worker(&[]).await;
                assert_eq!(stage.scene.ended("s").await.0, "stuck");
                stage.person(&["retry", "s"]).await;
            }
            Situation::Repairing(arguments) => {
                stage.scene.start_worker(&[]).await;
                assert_eq!(stage.scene.ended("s").await.0, "stuck");
                stage.decide(arguments).await;
            }
        }
        stage.gate.open();
        if stage.scene.workers.is_empty() {
            stage.scene.start_worker(&[]).await;
        }
        stage.scene.all_ended(PATIENCE * 2).await;
        self.judge(&stage).await;
    }

    /// What the saga must come to, whoever died.
    fn ending(&self) -> &'static str {
        match (self.situation, self.direction) {
            (Situation::Deciding(&["abort" | "force", ..]) | Situation::Repairing(&["resolve", ..]), _) => {
                "failed"
            }
            (_, Direction::Forward) => "succeeded",
            (_, Direction::Backward) => "failed",
        }
    }

    async fn judge(&self, stage: &Stage) {
        assert_eq!(stage.scene.status("s").await.unwrap().0, self.ending());
        let oracle = stage.scene.oracle().await.ledger(stage.other_participant.ledger().await);
        oracle.told([("s".to_owned(), Fate::Committed)]).judge().await.holds();
    }
}

/// Where a case is played.
struct Stage {
    case: Case,
    scene: Scene,
    /// Nobody answers there until it is told to.
    other_participant: Participant,
    /// The call that the case is about waits here.
    gate: Gate,
    /// The worker that dies at the point.
    mortal: Option<Worker>,
    folder: TempDir,
}

impl Stage {
    async fn set(case: Case, cluster: &Cluster) -> Stage {
        let stage = Stage {
            case,
            scene: Scene::with_ledger(cluster).await,
            other_participant: Participant::away_with_ledger().await,
            gate: Gate::new(),
            mortal: None,
            folder: tempfile::tempdir().unwrap(),
        };
        if case.situation == Situation::Purging {
            stage.insert_old().await;
        }
        stage.insert().await;
        if case.situation == Situation::Parking {
            stage.insert_fillers().await;
        }
        stage
    }

    /// Three steps. The call that the case is about waits at the gate; backward, the third step is
    /// refused after a try that did its work, so that all three are undone.
    async fn insert(&self) {
        let Case { situation, step, direction, .. } = self.case;
        let first = match situation {
            Situation::Working | Situation::Parallel | Situation::Changed(_) => {
                vec![Behaviour::Status(500).behind(&self.gate)]
            }
            Situation::Repairing(_) => vec![Behaviour::Refuse("no".into())],
            Situation::Parking => Vec::new(),
            _ => vec![Behaviour::Ok.behind(&self.gate)],
        };
        let mut saga = self
            .scene
            .saga("s")
            .column("request_timeout", "'20 seconds'")
            .column("retry_interval", "'50 milliseconds'");
        for number in 1..=STEPS {
            let here = number == step;
            let forward = direction == Direction::Forward;
            let mut action = if here && forward { first.clone() } else { Vec::new() };
            if number == STEPS && !forward {
                let refuse = Behaviour::Refuse("no".into());
                action.extend([Behaviour::CloseAfter, refuse.clone(), refuse]);
            }
            let compensate = if here && !forward { first.clone() } else { Vec::new() };
            saga = saga.step(&format!("step-{number}"));
            saga = saga.action(Behaviour::Sequence(action)).compensate(Behaviour::Sequence(compensate));
            if here && situation == Situation::Parking {
                let key = if forward { "action" } else { "compensate" };
                saga = saga.with(key, json!(self.other_participant.url("/s")));
            }
            if situation == Situation::Parallel {
                let before: Vec<String> = if number == STEPS {
                    (1..STEPS).map(|n| format!("step-{n}")).collect()
                } else {
                    Vec::new()
                };
                saga = saga.with("after", json!(before));
            }
            if matches!(situation, Situation::Repairing(_)) && forward {
                saga = if number == 1 {
                    saga.with("pivot", json!(true))
                } else {
                    saga.with("compensate", serde_json::Value::Null)
                };
            }
        }
        saga.insert().await;
    }

    /// It is rolled back at its deadline, or when a person aborts it.
    async fn insert_unserved(&self, timeout_to_fail: &str) {
        let saga = self.scene.saga(UNSERVED).step("pay").with("action", json!("participant:nobody/pay"));
        saga.column("timeout_to_fail", timeout_to_fail).insert().await;
    }

    /// A breaker opens after twenty calls in a row that nobody answered.
    async fn insert_fillers(&self) {
        let url = self.other_participant.url("/filler");
        for number in 0..30 {
            let saga = self.scene.saga(&format!("filler-{number}")).step("pay");
            saga.with("action", json!(url)).with("compensate", json!(url)).insert().await;
        }
    }

    /// Two sagas in a history partition that goes as a whole, and one in that of the saga to come.
    /// All finished a day ago.
    async fn insert_old(&self) {
        self.sql(
            "begin;
             set local session_replication_role = replica;
             insert into pgsaga.saga (id, gid, status, steps, created_at, finished_at) overriding system value
             select n, 'old-' || n, 'succeeded', '[{\"action\": \"\"}]', clock_timestamp() - interval '1 day', clock_timestamp() - interval '1 day'
             from unnest('{1000000, 1000001, 2000000}'::bigint[]) n;
             insert into pgsaga.history (saga_id, step, op, attempt, outcome)
             select id, 1, 'action', 1, 'success' from pgsaga.saga where gid like 'old-%';
             select setval('pgsaga.saga_id_seq', 2000000);
             select pgsaga.make_history_partitions();
             commit",
        )
        .await;
    }

    /// They are, and so is all their history.
    async fn old_are_gone(&self) {
        self.wait_for(
            "the old sagas are gone",
            "select where to_regclass('pgsaga.history_1') is null and not exists (select from pgsaga.saga where gid like 'old-%')
               and not exists (select from pgsaga.history h where not exists (select from pgsaga.saga s where s.id = h.saga_id))",
        )
        .await;
    }

    fn armed(&self) -> PathBuf {
        self.folder.path().join("armed")
    }

    /// From now on the point is deadly.
    fn arm(&self) {
        File::create(self.armed()).unwrap();
    }

    async fn start_mortal(&mut self) {
        let armed = self.armed();
        let env = [("FAIL_AT", self.case.point), ("FAIL_WHEN", armed.to_str().unwrap())];
        let mut flags = vec![
            "--lease-seconds",
            "2",
            "--concurrency",
            if self.case.situation == Situation::Draining { "1" } else { "64" },
        ];
        if self.case.situation == Situation::Purging {
            flags.extend(RETENTION);
        }
        let program = &binary::failing().pgsaga;
        self.mortal = Some(Worker::spawn_program(program, self.scene.db.url(), &flags, &env));
    }

    /// The call that the case is about has arrived.
    async fn called(&self) {
        let (step, op) = (self.case.step_name(), self.case.op());
        eventually(PATIENCE, "the step is called", async || {
            let calls = self.scene.participant.calls_for("s");
            calls.iter().any(|call| call.branch_id == step && call.op == op).then_some(())
        })
        .await;
    }

    /// A worker starts, and dies at the point.
    async fn mortal_dies(&mut self) {
        self.arm();
        self.start_mortal().await;
        self.dead().await;
    }

    async fn dead(&mut self) {
        let mut worker = self.mortal.take().unwrap();
        let exit = worker.wait_exit(PATIENCE).await;
        assert_eq!(exit.signal(), Some(Signal::SIGABRT as i32), "it died of something else");
        worker.wait_for_log(&format!("fail point {}", self.case.point), PATIENCE).await;
    }

    async fn sql(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(self.scene.pool()).await.unwrap();
    }

    async fn wait_for(&self, what: &str, query: &'static str) {
        eventually(PATIENCE, what, async || {
            sqlx::query(query).fetch_optional(self.scene.pool()).await.unwrap().map(drop)
        })
        .await;
    }

    /// A person whose command dies says it again.
    async fn decide(&self, arguments: &[&str]) {
        self.arm();
        let died = self.command(arguments, true).await;
        let said = String::from_utf8_lossy(&died.stderr);
        assert_eq!(died.status.signal(), Some(Signal::SIGABRT as i32), "{arguments:?} said: {said}");
        let before = self.case.point.ends_with(":before");
        let again = self.command(arguments, false).await;
        let said = String::from_utf8_lossy(&again.stderr);
        // What took effect may be too late to say again, and then says so.
        assert!(again.status.success() || !before, "{arguments:?} said: {said}");
    }

    async fn person(&self, arguments: &[&str]) {
        let output = self.command(arguments, false).await;
        assert!(output.status.success(), "{arguments:?} said: {}", String::from_utf8_lossy(&output.stderr));
    }

    async fn command(&self, arguments: &[&str], mortal: bool) -> Output {
        let mut command = binary::command_of(&binary::failing().pgsaga);
        let step = self.case.step_name();
        command.args(
            arguments.iter().map(|argument| if *argument == "STEP" { step.as_str() } else { argument }),
        );
        command.args(["--database-url", self.scene.db.url()]);
        if mortal {
            command.env("FAIL_AT", self.case.point).env("FAIL_WHEN", self.armed());
        }
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
}
