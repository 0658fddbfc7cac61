//! The participant's barrier, behind real handlers that move real money.

use pgsaga_tests::scene::Scene;

use super::bank::{Bank, Fault, order};
use super::client::{Client, Draft};

const OVERDRAWN: &str = "fee: insufficient balance";

/// Then more is asked of `in` than it can have: a definite no.
fn then_refused<'a>(saga: Draft<'a>, bank: &Bank) -> Draft<'a> {
    saga.step("fee").at(bank.url()).payload(order(&[("in", -1_000)], &[]))
}

#[tokio::test]
async fn barrier_balances_after_commit() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let bank = Bank::open(client.way).await;
        let twice = order(&[("out", -30)], &[("action", 0, Fault::AnswerLost)]);
        let saga = client.saga("s").step("out").at(bank.url()).payload(twice);
        saga.step("in").at(bank.url()).payload(order(&[("in", 30)], &[])).submit().await;
        client.expect_end("s", "succeeded", None).await;
        let history = ["out action 1 unknown", "out action 2 success", "in action 1 success"];
        assert_eq!(client.history("s").await, history);
        assert_eq!(bank.balances().await, (130, 70));
        assert_eq!(
            bank.barrier(&client.gid("s")).await,
            ["in action 01, by action", "out action 01, by action"]
        );
    }
    scene.healthy().await;
}

#[tokio::test]
async fn barrier_balances_after_rollback() {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let bank = Bank::open(client.way).await;
        // One repeated op each: were both of one step done twice, its balance would be none the
        // worse.
        let twice = |op| [(op, 0, Fault::AnswerLost)];
        let saga =
            client.saga("s").step("out").at(bank.url()).payload(order(&[("out", -30)], &twice("action")));
        let saga = saga.step("in").at(bank.url()).payload(order(&[("in", 30)], &twice("compensate")));
        then_refused(saga, &bank).submit().await;
        client.expect_end("s", "failed", Some(OVERDRAWN)).await;
        let history = [
            "out action 1 unknown",
            "out action 2 success",
            "in action 1 success",
            "fee action 1 failure",
            "in compensate 1 unknown",
            "in compensate 2 success",
            "out compensate 1 success",
        ];
        assert_eq!(client.history("s").await, history);
        assert_eq!(bank.balances().await, (100, 100));
        let rows = [
            "in action 01, by action",
            "in compensate 01, by compensate",
            "out action 01, by action",
            "out compensate 01, by compensate",
        ];
        assert_eq!(
            bank.barrier(&client.gid("s")).await,
            rows,
            "both were done and undone; the refusal left no row"
        );
    }
    scene.healthy().await;
}

#[tokio::test]
async fn barrier_two_in_one_handler() {
    let scene = Scene::with_worker().await;
    let moves = [("out", -30), ("in", 30)];
    for client in Client::both(&scene) {
        let bank = Bank::open(client.way).await;
        let exchange = |name: &str, faults: &[(&str, usize, Fault)]| {
            client.saga(name).step("exchange").at(bank.url()).payload(order(&moves, faults))
        };
        // The second use fails once: the next try does only what is not done yet.
        exchange("done", &[("action", 1, Fault::Error)]).submit().await;
        client.expect_end("done", "succeeded", None).await;
        assert_eq!(client.history("done").await, ["exchange action 1 unknown", "exchange action 2 success"]);
        assert_eq!(bank.balances().await, (130, 70));
        let rows = ["exchange action 01, by action", "exchange action 02, by action"];
        assert_eq!(bank.barrier(&client.gid("done")).await, rows);

        let undone = exchange("undone", &[("compensate", 1, Fault::Error)]);
        then_refused(undone, &bank).submit().await;
        client.expect_end("undone", "failed", Some(OVERDRAWN)).await;
        assert_eq!(bank.balances().await, (130, 70));
        let rows = [
            "exchange action 01, by action",
            "exchange compensate 01, by compensate",
            "exchange action 02, by action",
            "exchange compensate 02, by compensate",
        ];
        assert_eq!(bank.barrier(&client.gid("undone")).await, rows);

        // Half of it was done: that half is undone.
        exchange("half", &[("action", 1, Fault::Error)]).retry_limit(0).submit().await;
        client.expect_end("half", "failed", Some("exchange: retry limit 0 reached")).await;
        assert_eq!(bank.balances().await, (130, 70));
        let rows = [
            "exchange action 01, by action",
            "exchange compensate 01, by compensate",
            "exchange action 02, by compensate",
            "exchange compensate 02, by compensate",
        ];
        assert_eq!(bank.barrier(&client.gid("half")).await, rows);
    }
    scene.healthy().await;
}

#[tokio::test]
async fn barrier_panic_in_the_business_part_rolls_the_barrier_row_back() {
    rolls_the_barrier_row_back(Fault::Panic).await;
}

#[tokio::test]
async fn barrier_error_in_the_business_part_rolls_the_barrier_row_back() {
    rolls_the_barrier_row_back(Fault::Error).await;
}

/// With a row that stayed, the next try would do nothing; with a move that stayed, it would be done
/// twice.
async fn rolls_the_barrier_row_back(fault: Fault) {
    let scene = Scene::with_worker().await;
    for client in Client::both(&scene) {
        let bank = Bank::open(client.way).await;
        let out = |name: &str, op: &str| {
            let payload = order(&[("out", -30)], &[(op, 0, fault)]);
            client.saga(name).step("out").at(bank.url()).payload(payload)
        };
        out("retried", "action").submit().await;
        client.expect_end("retried", "succeeded", None).await;
        assert_eq!(client.history("retried").await, ["out action 1 unknown", "out action 2 success"]);
        assert_eq!(bank.balances().await, (100, 70));

        then_refused(out("undone", "compensate"), &bank).submit().await;
        client.expect_end("undone", "failed", Some(OVERDRAWN)).await;
        let unwind = ["out compensate 1 unknown", "out compensate 2 success"];
        assert_eq!(client.history("undone").await[2..], unwind);
        assert_eq!(bank.balances().await, (100, 70));

        out("given-up", "action").retry_limit(0).submit().await;
        client.expect_end("given-up", "failed", Some("out: retry limit 0 reached")).await;
        assert_eq!(bank.balances().await, (100, 70), "there was nothing to undo");
        let rows = ["out action 01, by compensate", "out compensate 01, by compensate"];
        assert_eq!(bank.barrier(&client.gid("given-up")).await, rows);
    }
    scene.healthy().await;
}
