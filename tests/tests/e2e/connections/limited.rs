//! A participant that limits its callers, and says when they may come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Behaviour, sized};

/// Calls that the participant takes in each second.
const CALLS_A_SECOND: usize = 50;

/// What the participant remembers.
struct Limiter {
    second_began: Instant,
    calls: usize,
    refused: HashMap<String, Instant>,
    /// Seconds after which a refused call may come back.
    retry_after: u64,
    /// The shortest time from a refusal to the next call of the same saga.
    soonest: Duration,
}

impl Limiter {
    fn answer(&mut self, gid: &str) -> Behaviour {
        if let Some(refused) = self.refused.remove(gid) {
            self.soonest = self.soonest.min(refused.elapsed());
        }
        if self.second_began.elapsed() >= Duration::from_secs(1) {
            (self.second_began, self.calls) = (Instant::now(), 0);
        }
        self.calls += 1;
        if self.calls <= CALLS_A_SECOND {
            return Behaviour::Ok;
        }
        self.refused.insert(gid.to_owned(), Instant::now());
        Behaviour::raw(429, &[("retry-after", &self.retry_after.to_string())], "")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_were_refused_together_come_back_spread_and_no_sooner_than_asked() {
    let (count, retry_after): (usize, u64) = sized((200, 1), (3000, 5));
    let scene = Scene::with_worker().await;
    let limiter = Arc::new(Mutex::new(Limiter {
        second_began: Instant::now(),
        calls: 0,
        refused: HashMap::new(),
        retry_after,
        soonest: Duration::MAX,
    }));
    let of_participant = Arc::clone(&limiter);
    scene.participant.ruled_by(move |call| of_participant.lock().unwrap().answer(&call.gid));
    let started = Instant::now();
    sqlx::query(
        "insert into pgsaga.saga (gid, steps)
         select 's' || n, jsonb_build_array(jsonb_build_object('name', 'a', 'action', $1::text))
         from generate_series(1, $2) n",
    )
    .bind(scene.participant.url("/limited"))
    .bind(count as i32)
    .execute(scene.pool())
    .await
    .unwrap();
    scene.all_ended(Duration::from_secs(300)).await;
    let calls = scene.participant.calls().len();
    eprintln!("{count} sagas: {calls} calls in {:?}", started.elapsed());
    let soonest = limiter.lock().unwrap().soonest;
    assert!(soonest >= Duration::from_secs(retry_after), "sooner than asked: {soonest:?}");
    // If all came back together, each second would take fifty of them and refuse all others.
    let waves = count.div_ceil(CALLS_A_SECOND);
    assert!(calls < count * waves.min(6), "{calls} calls for {count} sagas");
    scene.healthy().await;
}
