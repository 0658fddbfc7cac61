//! Everything at once, from a seed: the sequences of sagas, of faults and of an operator's
//! decisions follow from `SEED`. Half a minute by default, a minute where `TEST_SIZE=full`; an
//! hour: `CHAOS_SECONDS=3600 cargo test -p pgsaga-tests --test faults chaos -- --nocapture`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use pgsaga_tests::bank::Banks;
use pgsaga_tests::oracle::{Fate, Oracle, Tail, WorkerTail};
use pgsaga_tests::scene::PATIENCE;
use pgsaga_tests::{Participant, eventually, setting, sized};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::postgres::PgPool;
use tokio::sync::watch;

mod fault;
mod fleet;
mod operator;
mod producer;
mod saga;
mod servers;

use fault::{Deck, Fault, World};
use fleet::Fleet;
use producer::CLIENTS;
use saga::{Draft, Places};
use servers::Servers;

/// The longest that all may take to end after the last fault.
const TAIL_MAX: Duration = Duration::from_secs(60);
/// Of the seconds of a run, those that are left for its tail.
const TAIL_SECONDS: u64 = 15;
/// How far into the faults the standby is promoted.
const PROMOTED_AT: std::ops::Range<f64> = 0.6..0.7;
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[cfg_attr(not(has_faketime), ignore = "needs faketime: apt-get install faketime")]
async fn whatever_happens_every_saga_ends_all_done_or_all_undone() {
    let seed = setting("SEED", 20_261_122);
    let seconds = setting("CHAOS_SECONDS", sized(30, 60));
    println!("SEED={seed} CHAOS_SECONDS={seconds}");
    let mut run = Run::start(seed).await;
    let (stop, stopped) = watch::channel(false);
    let producer =
        tokio::spawn(producer::produce(seed, run.pool().clone(), Arc::clone(&run.places), stopped.clone()));
    let operator = tokio::spawn(operator::operate(seed, run.pool().clone(), stopped));

    let faults = Duration::from_secs(seconds - TAIL_SECONDS.min(seconds / 4));
    let counts = run.faults(seed, faults).await;
    stop.send_replace(true);
    let told = producer.await.unwrap();
    let decisions = operator.await.unwrap();
    let tail = run.tail().await;

    let mut oracle = Oracle::new(run.pool())
        .ledger(run.world.open.ledger().await)
        .ledger(run.world.closed.ledger().await)
        .barrier(run.world.banks.pool())
        .told(told.iter().enumerate().map(|(n, fate)| (saga::gid(n as u64), *fate)))
        .money(run.world.banks.money(run.pool()).await)
        .tail(tail.clone());
    for ledger in run.world.banks.ledgers() {
        oracle = oracle.ledger(ledger);
    }
    let began = Instant::now();
    let verdict = oracle.judge().await;
    let rescues = run.rescues().await;
    let fates = |fate| told.iter().filter(|told| **told == fate).count();
    println!(
        "{} committed, {} rolled back, {} unknown; {:?}; {} calls; {rescues} tries lost with their workers\n\
         faults: {counts:?}; {}\ndecisions: {decisions:?}\n\
         {:?} from the last fault to the end of the last saga; judged in {:.1} s; {} MB",
        fates(Fate::Committed),
        fates(Fate::RolledBack),
        fates(Fate::Unknown),
        verdict.sagas,
        verdict.calls,
        run.world.servers.story(),
        tail.ended_after,
        began.elapsed().as_secs_f64(),
        memory_mb(),
    );
    verdict.holds();
    assert_eq!(run.world.fleet.wrongs(), Vec::<String>::new(), "SEED={seed}");
    for status in ["succeeded", "failed"] {
        assert!(
            verdict.sagas.get(status).is_some_and(|count| *count > 10),
            "a run without sagas that {status}"
        );
    }
    assert!(rescues > 0 && verdict.calls > 100, "a run in which nothing was lost shows nothing");
}

/// All that runs.
struct Run {
    world: World,
    places: Arc<Places>,
}

impl Run {
    async fn start(seed: u64) -> Run {
        let servers = Servers::start(CLIENTS as u32 + 3).await;
        let (open, closed) = (Participant::with_ledger().await, Participant::with_ledger().await);
        for participant in [&open, &closed] {
            participant.without_memory().ruled_by(move |call| saga::behaviour(seed, call));
        }
        closed.behind_a_barrier();
        let banks = Banks::open(servers.banks(), seed).await;
        let places = Arc::new(Places {
            open: open.url(""),
            closed: closed.url(""),
            banks: banks.urls().map(str::to_owned),
        });
        let fleet = Fleet::start(&servers.both_hosts()).await;
        Run { world: World { fleet, open, closed, banks, servers }, places }
    }

    fn pool(&self) -> &PgPool {
        self.world.servers.pool()
    }

    /// One fault after the other, until the time is over and every kind had its turn; where there
    /// is little time, the promotion at least. Returns how many of each kind.
    async fn faults(&mut self, seed: u64, time: Duration) -> BTreeMap<Fault, usize> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut deck = Deck::default();
        let mut counts = BTreeMap::new();
        // Dice of its own: how many faults come before it is a matter of time.
        let mut promotion = StdRng::seed_from_u64(seed.rotate_left(16));
        let promoted_at = time.mul_f64(promotion.random_range(PROMOTED_AT));
        let (began, mut shown) = (Instant::now(), Instant::now());
        let all = if time > Duration::from_secs(20) { &Fault::ALL[..] } else { &[Fault::Promote] };
        while began.elapsed() < time || !all.iter().all(|fault| counts.contains_key(fault)) {
            let promotes = began.elapsed() > promoted_at && !counts.contains_key(&Fault::Promote);
            let fault = if promotes { Fault::Promote } else { deck.deal(&mut random) };
            let dice = if promotes { &mut promotion } else { &mut random };
            let struck = Utc::now();
            fault.strike(&mut self.world, dice).await;
            println!(
                "{} {fault:?}, {:.1?}",
                struck.format("%T%.3f"),
                (Utc::now() - struck).to_std().unwrap_or_default()
            );
            *counts.entry(fault).or_default() += 1;
            let pause = Instant::now() + Duration::from_millis(random.random_range(100..1200));
            while Instant::now() < pause {
                self.world.tick().await;
                tokio::time::sleep(Duration::from_millis(50)).await; // the moment of the next fault is what is varied
            }
            if shown.elapsed() > PROGRESS_EVERY {
                shown = Instant::now();
                self.progress(began.elapsed(), &counts).await;
            }
        }
        counts
    }

    async fn progress(&self, elapsed: Duration, counts: &BTreeMap<Fault, usize>) {
        let counted: Result<(i64, i64, i64), _> = sqlx::query_as(
            "select count(*), count(*) filter (where finished_at is null), count(*) filter (where status = 'stuck') from pgsaga.saga",
        )
        .fetch_one(self.pool())
        .await;
        let sagas = counted.map_or("Postgres is away".to_owned(), |(all, open, stuck)| {
            format!("{all} sagas, {open} open, {stuck} stuck")
        });
        let faults: usize = counts.values().sum();
        println!("{:>5} s: {sagas}, {faults} faults, {} MB", elapsed.as_secs(), memory_mb());
    }

    /// No more faults: all that has begun ends, and whoever lives has a part in what comes then.
    async fn tail(&mut self) -> Tail {
        self.world.calm().await;
        let last_fault = Instant::now();
        let mut ended_after = None;
        while ended_after.is_none() && last_fault.elapsed() < TAIL_MAX {
            let _ = operator::retry_stuck(self.pool()).await;
            let open = "select count(*) from pgsaga.saga where finished_at is null";
            if let Ok(0) = sqlx::query_scalar::<_, i64>(open).fetch_one(self.pool()).await {
                ended_after = Some(last_fault.elapsed());
            }
            self.world.tick().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if ended_after.is_none() {
            let open: Vec<String> = sqlx::query_scalar(
                "select to_jsonb(s)::text || coalesce(' task ' || to_jsonb(t)::text, ' no task') from pgsaga.saga s
                 left join pgsaga.task t on t.saga_id = s.id where s.finished_at is null order by s.id limit 5",
            )
            .fetch_all(self.pool())
            .await
            .unwrap();
            println!("not ended: {open:#?}");
        }
        self.world.fleet.settle_down().await;
        let workers = self.late_sagas().await;
        let sagas = sqlx::query_as("select gid, status from pgsaga.saga where gid like 'tail-%'")
            .fetch_all(self.pool())
            .await
            .unwrap();
        Tail { bound: TAIL_MAX, ended_after, sagas, workers }
    }

    /// Sagas that nothing keeps from succeeding, until every worker had a successful call.
    async fn late_sagas(&mut self) -> Vec<WorkerTail> {
        let before = self.world.fleet.successes().await;
        let began = Instant::now();
        let mut batch = 0;
        loop {
            for n in 0..40 {
                let draft = Draft::tail(batch * 40 + n);
                draft.insert(self.pool(), &self.places).await.unwrap();
            }
            batch += 1;
            eventually(PATIENCE, "the last sagas end", async || {
                let open = "select count(*) from pgsaga.saga where finished_at is null and gid like 'tail-%'";
                let open: i64 = sqlx::query_scalar(open).fetch_one(self.pool()).await.unwrap();
                (open == 0).then_some(())
            })
            .await;
            let after = self.world.fleet.successes().await;
            let tails: Vec<WorkerTail> = before
                .iter()
                .map(|(pid, successes_before)| WorkerTail {
                    pid: *pid,
                    successes_before: *successes_before,
                    successes_after: after[pid],
                })
                .collect();
            let all = tails.iter().all(|worker| worker.successes_after > worker.successes_before);
            if all || began.elapsed() > PATIENCE {
                return tails;
            }
        }
    }

    async fn rescues(&self) -> i64 {
        sqlx::query_scalar(
            "select count(*) from pgsaga.history where outcome = 'unknown' and duration_us is null",
        )
        .fetch_one(self.pool())
        .await
        .unwrap()
    }
}

/// What this process holds in memory.
fn memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
