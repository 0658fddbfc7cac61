//! Producers behind a bad link: the application does what the README tells it, and there is one
//! saga, called once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pgsaga_producer::{Error, Saga, SagaStatus, Step, Waiter, abort, status, submit_many};
use pgsaga_tests::command::run_as;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Fault, Gate, Proxy};
use sqlx::postgres::{PgPool, PgPoolOptions};

use super::{marker, scene};

/// A scene with a worker on a whole link, and an application's pool behind the proxy.
async fn application() -> (Scene, Proxy, PgPool) {
    let (mut scene, proxy) = scene().await;
    scene.start_worker(&[]).await;
    let orders = "create table orders (id bigint primary key, cents bigint not null)";
    sqlx::raw_sql(orders).execute(scene.pool()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(4).connect_lazy(proxy.url()).unwrap();
    (scene, proxy, pool)
}

async fn orders(scene: &Scene) -> i64 {
    sqlx::query_scalar("select count(*) from orders").fetch_one(scene.pool()).await.unwrap()
}

async fn sagas(scene: &Scene) -> i64 {
    sqlx::query_scalar("select count(*) from pgsaga.saga").fetch_one(scene.pool()).await.unwrap()
}

fn saga(scene: &Scene, gid: &str) -> Saga {
    let url = scene.participant.url(&format!("/{gid}/pay"));
    Saga::new().gid(gid).unwrap().step(Step::new("pay").action(&url).compensate(&url))
}

/// The order and its saga, in the application's transaction; whether the saga is new.
async fn order(pool: &PgPool, id: i64, saga: &Saga) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query("insert into orders (id, cents) values ($1, 990) on conflict (id) do nothing")
        .bind(id)
        .execute(&mut *transaction)
        .await?;
    let submitted = saga.submit(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(submitted.created)
}

/// Which moment of a transaction is cut, and whether it stands.
const MOMENTS: [(&str, bool, bool); 5] = [
    ("COMMIT", true, true),
    ("COMMIT", false, false),
    ("insert into orders", false, false),
    ("-- Inserts one saga", false, false),
    ("-- Inserts one saga", true, false),
];

#[tokio::test]
async fn an_order_whose_transaction_breaks_anywhere_is_repeated_and_there_is_one_saga_called_once() {
    let (scene, proxy, pool) = application().await;
    for (id, (statement, reply, stands)) in (1..).zip(MOMENTS) {
        let gid = format!("order-{id}");
        let saga = saga(&scene, &gid);
        let fault =
            if reply { Fault::cut_before_reply(statement) } else { Fault::cut_before_request(statement) };
        let cut = proxy.inject(fault);
        let error = order(&pool, id, &saga).await.unwrap_err();
        assert!(matches!(error, Error::Database(_)), "{error:?}");
        assert_eq!(cut.struck(), 1, "{statement}");
        assert_eq!(order(&pool, id, &saga).await.unwrap(), !stands, "{statement}");
        scene.expect(&gid, "succeeded", None, &["pay action"]).await;
    }
    assert_eq!((orders(&scene).await, sagas(&scene).await), (5, 5));
}

#[tokio::test]
async fn plain_sql_as_the_readme_writes_it_is_repeated_and_there_is_one_saga_called_once() {
    let (scene, proxy, pool) = application().await;
    let steps = scene.saga("order-1").step("pay").steps();
    let order = async || -> Result<(), sqlx::Error> {
        let mut transaction = pool.begin().await?;
        sqlx::query("insert into orders (id, cents) values (1, 990) on conflict (id) do nothing")
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "insert into pgsaga.saga (gid, steps) values ('order-1', $1) on conflict (gid) do nothing",
        )
        .bind(&steps)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    };
    let lost = proxy.inject(Fault::cut_before_reply("COMMIT"));
    order().await.unwrap_err();
    let reset = proxy.inject(Fault::reset().on("insert into pgsaga.saga"));
    order().await.unwrap_err();
    order().await.unwrap();
    assert_eq!((lost.struck(), reset.struck()), (1, 1));
    scene.expect("order-1", "succeeded", None, &["pay action"]).await;
    assert_eq!((orders(&scene).await, sagas(&scene).await), (1, 1));
}

#[tokio::test]
async fn what_commits_by_itself_is_repeated_after_a_lost_reply_too() {
    let (scene, proxy, pool) = application().await;
    let one = saga(&scene, "one");
    proxy.inject(Fault::cut_before_reply(marker("producer_submit")));
    one.submit(&pool).await.unwrap_err();
    assert!(!one.submit(&pool).await.unwrap().created);

    let many: Vec<Saga> = (0..100).map(|n| saga(&scene, &format!("many-{n}"))).collect();
    proxy.inject(Fault::cut_before_reply(marker("producer_submit_many")));
    submit_many(&pool, &many[..60]).await.unwrap_err();
    let submitted = submit_many(&pool, &many).await.unwrap();
    let created: Vec<bool> = submitted.iter().map(|submitted| submitted.created).collect();
    assert_eq!(created, [vec![false; 60], vec![true; 40]].concat());

    proxy.inject(Fault::cut_before_reply(marker("producer_status")));
    status(&pool, "one").await.unwrap_err();
    assert!(status(&pool, "one").await.unwrap().is_some());
    scene.all_ended(PATIENCE).await;
    assert_eq!((sagas(&scene).await, scene.participant.calls().len()), (101, 101));
    scene.healthy().await;
}

/// The README derives the gid from the application's own rows. Without one there is nothing to tell
/// a repeat by.
#[tokio::test]
async fn without_a_gid_of_its_own_a_repeat_is_another_saga_but_the_gid_that_submit_gave_tells_whether_it_stands()
 {
    let (scene, proxy, pool) = application().await;
    let saga = Saga::new().step(Step::new("pay").action(scene.participant.url("/made/pay")));
    proxy.inject(Fault::cut_before_reply("COMMIT"));
    let mut transaction = pool.begin().await.unwrap();
    let made = saga.submit(&mut *transaction).await.unwrap().gid;
    transaction.commit().await.unwrap_err();
    assert!(status(&pool, &made).await.unwrap().is_some());
    assert_ne!(saga.submit(&pool).await.unwrap().gid, made);
    assert_eq!(sagas(&scene).await, 2);
}

#[tokio::test]
async fn an_abort_whose_reply_is_lost_is_repeated_by_a_program_and_by_a_person() {
    let (scene, proxy, pool) = application().await;
    let gate = Gate::new();
    for gid in ["program", "person"] {
        let url = format!("/{gid}/pay");
        scene.participant.on(&url, "action", Behaviour::Gate(gate.clone()));
        saga(&scene, gid).request_timeout(PATIENCE).submit(&pool).await.unwrap();
    }
    scene.participant.wait_for_calls(2, PATIENCE).await;
    proxy.inject(Fault::cut_before_reply(marker("producer_abort")));
    abort(&pool, "program", "no stock").await.unwrap_err();
    assert_eq!(abort(&pool, "program", "no stock").await.unwrap(), SagaStatus::Aborting);

    proxy.inject(Fault::cut_before_reply(marker("decide")));
    let url = proxy.url().to_owned();
    let abort = move || run_as(&url, &["abort", "person", "--reason", "no stock"]);
    let said = tokio::task::spawn_blocking(abort.clone()).await.unwrap();
    assert_eq!(said.code, Some(5), "{}", said.err);
    assert!(said.err.contains("it may have been decided all the same: repeating it is safe"), "{}", said.err);
    let said = tokio::task::spawn_blocking(abort).await.unwrap();
    assert_eq!(said.fine(), "person: aborting, as before: nothing was changed\n");
    gate.open();
    for gid in ["program", "person"] {
        let reason = Some("pay: aborted: no stock");
        scene.expect(gid, "failed", reason, &["pay action", "pay compensate"]).await;
        let decisions = "select count(*) from pgsaga.saga_timeline where gid = $1 and kind = 'decision'";
        let decisions: i64 = sqlx::query_scalar(decisions).bind(gid).fetch_one(scene.pool()).await.unwrap();
        assert_eq!(decisions, 1, "{gid}");
    }
}

#[tokio::test]
async fn waiters_end_at_their_own_deadline_on_a_stalled_link_and_get_their_answers_after_it() {
    let (scene, proxy, pool) = application().await;
    let gate = Gate::new();
    scene.participant.on("/s/pay", "action", Behaviour::Gate(gate.clone()));
    saga(&scene, "s").request_timeout(PATIENCE).submit(&pool).await.unwrap();
    let waiter = Waiter::new(pool.clone());
    // They share one connection.
    let patient = (0..1_000).map(|_| {
        let waiter = waiter.clone();
        tokio::spawn(async move { waiter.wait("s", PATIENCE).await })
    });
    let patient: Vec<_> = patient.collect();
    scene.participant.wait_for_calls(1, PATIENCE).await;
    let stalled = proxy.inject(Fault::stall().always());
    let deadline = Duration::from_millis(700);
    let started = Instant::now();
    for ended in join_all((0..100).map(|_| waiter.wait("s", deadline))).await {
        assert!(matches!(ended, Err(Error::Deadline { .. })), "{ended:?}");
    }
    let took = started.elapsed();
    assert!(took < deadline + Duration::from_secs(1), "{took:?}");
    gate.open();
    scene.ended("s").await;
    stalled.lift();
    let whole = Instant::now();
    for ended in patient {
        assert_eq!(ended.await.unwrap().unwrap().status, SagaStatus::Succeeded);
    }
    assert!(whole.elapsed() < Duration::from_secs(5), "{:?}", whole.elapsed());
}

#[tokio::test]
async fn a_waiter_whose_connection_is_cut_between_two_looks_or_in_one_looks_again() {
    let (scene, proxy, pool) = application().await;
    let gate = Gate::new();
    scene.participant.on("/s/pay", "action", Behaviour::Gate(gate.clone()));
    saga(&scene, "s").request_timeout(PATIENCE).submit(&pool).await.unwrap();
    let waiter = Waiter::new(pool.clone());
    let waiting = tokio::spawn({
        let waiter = waiter.clone();
        async move { waiter.wait("s", PATIENCE).await }
    });
    for fault in [Fault::reset().now(), Fault::cut_before_reply(marker("producer_wait"))] {
        let cut = proxy.inject(fault);
        cut.wait_until_struck(1, PATIENCE).await;
    }
    gate.open();
    assert_eq!(waiting.await.unwrap().unwrap().status, SagaStatus::Succeeded);
}

/// Its pool has one connection: a look that hangs must not keep it.
#[tokio::test]
async fn a_look_that_hangs_gives_its_connection_up() {
    let (scene, proxy, _) = application().await;
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy(proxy.url()).unwrap();
    saga(&scene, "s").submit(&pool).await.unwrap();
    scene.ended("s").await;
    let gone = proxy.inject(Fault::server_gone().on(marker("producer_wait")));
    let started = Instant::now();
    let ended = Waiter::new(pool).wait("s", PATIENCE).await.unwrap();
    assert_eq!((ended.status, gone.struck()), (SagaStatus::Succeeded, 1));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(15), "a look is given up after ten seconds: {took:?}");
}
