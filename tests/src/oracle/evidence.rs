//! Reads cases from the database and from the ledgers' files.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;
use sqlx::postgres::PgPool;

use super::case::{Call, Case, Event, Row, Saga, Step};
use super::{CASES_MAX, Oracle};
use crate::ledger::{Did, Source};

/// Shows every case to the judge, a bounded number of them in memory at once.
pub(super) async fn each_case(oracle: &Oracle, mut judge: impl FnMut(&Case)) {
    let sagas: Vec<(i64, String)> =
        sqlx::query_as("select id, gid from pgsaga.saga").fetch_all(&oracle.pool).await.unwrap();
    let shards = (sagas.len().max(oracle.told.len()) / CASES_MAX + 1) as u64;
    for shard in 0..shards {
        let is_here = |gid: &str| hash(gid) % shards == shard;
        let here = sagas.iter().filter(|(_, gid)| is_here(gid));
        let (ids, gids): (Vec<i64>, Vec<&str>) = here.map(|(id, gid)| (*id, gid.as_str())).unzip();
        let mut cases = Cases(HashMap::new());
        for (gid, told) in oracle.told.iter().filter(|(gid, _)| is_here(gid)) {
            cases.of(gid).told = Some(*told);
        }
        read_sagas(&oracle.pool, &ids, &mut cases).await;
        for ledger in &oracle.ledgers {
            read_ledger(ledger, is_here, &mut cases);
        }
        for table in &oracle.tables {
            read_barrier(table, &gids, &mut cases).await;
        }
        for mut case in cases.0.into_values() {
            case.calls.sort_by_key(|call| call.arrived);
            judge(&case);
        }
    }
}

fn hash(gid: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    gid.hash(&mut hasher);
    hasher.finish()
}

struct Cases(HashMap<String, Case>);

impl Cases {
    fn of(&mut self, gid: &str) -> &mut Case {
        if !self.0.contains_key(gid) {
            self.0.insert(gid.to_owned(), Case { gid: gid.to_owned(), ..Case::default() });
        }
        self.0.get_mut(gid).unwrap()
    }
}

async fn read_sagas(pool: &PgPool, ids: &[i64], cases: &mut Cases) {
    let mut gids: HashMap<i64, String> = HashMap::new();
    let sagas: Vec<(i64, String, String, bool, Value)> =
        sqlx::query_as("select id, gid, status, progress is null, steps from pgsaga.saga where id = any($1)")
            .bind(ids)
            .fetch_all(pool)
            .await
            .unwrap();
    for (id, gid, status, sequential, steps) in sagas {
        let steps = read_steps(&steps, sequential);
        cases.of(&gid).saga = Some(Saga { status, steps, history: Vec::new() });
        gids.insert(id, gid);
    }
    type Found = (i64, Option<i16>, Option<String>, Option<i32>, Option<String>, Option<String>);
    let history: Vec<Found> = sqlx::query_as(
        "select saga_id, step, op, attempt, outcome, decision from pgsaga.history where saga_id = any($1) order by saga_id, seq",
    )
    .bind(ids)
    .fetch_all(pool)
    .await
    .unwrap();
    for (id, step, op, attempt, outcome, decision) in history {
        // A saga may have been inserted in between only while somebody still inserts.
        let Some(saga) = gids.get(&id).and_then(|gid| cases.of(gid).saga.as_mut()) else { continue };
        let step = step.map(|step| usize::try_from(step - 1).unwrap());
        let attempt = attempt.map(i32::cast_unsigned);
        saga.history.push(Event { step, op, attempt, outcome, decision });
    }
}

fn read_steps(steps: &Value, sequential: bool) -> Vec<Step> {
    let bodies = steps.as_array().unwrap();
    let count = bodies.len();
    let name = |position: usize| {
        bodies[position]["name"].as_str().map_or_else(|| format!("{:02}", position + 1), str::to_owned)
    };
    let names: Vec<String> = (0..count).map(name).collect();
    let direct = |position: usize| -> Vec<usize> {
        match bodies[position]["after"].as_array() {
            Some(after) if !sequential => {
                after.iter().map(|name| names.iter().position(|known| name == known).unwrap()).collect()
            }
            _ => position.checked_sub(1).into_iter().collect(),
        }
    };
    let is_call = |url: &Value| url.as_str().is_some_and(|url| !url.is_empty());
    (0..count)
        .map(|position| {
            let (mut waits_for, mut next) = (Vec::new(), direct(position));
            while let Some(before) = next.pop() {
                if !waits_for.contains(&before) {
                    waits_for.push(before);
                    next.extend(direct(before));
                }
            }
            let body = &bodies[position];
            let (acts, compensates) = (is_call(&body["action"]), is_call(&body["compensate"]));
            Step { name: names[position].clone(), waits_for, acts, compensates }
        })
        .collect()
}

fn read_ledger(ledger: &Source, is_here: impl Fn(&str) -> bool, cases: &mut Cases) {
    // Where in its case each call is that has not been answered.
    let mut open: HashMap<i64, usize> = HashMap::new();
    for line in ledger.lines().filter(|line| is_here(&line.asked.gid)) {
        let case = cases.of(&line.asked.gid);
        if line.did == Did::Arrived {
            open.insert(line.call, case.calls.len());
            let (keeps, arrived) = (ledger.keeps, line.at_us);
            let call = Call { keeps, asked: line.asked, arrived, worked: None, skipped: None, status: None };
            case.calls.push(call);
            continue;
        }
        let call = &mut case.calls[open[&line.call]];
        match line.did {
            Did::Worked => call.worked = Some(line.at_us),
            Did::Skipped => call.skipped = Some(line.at_us),
            Did::Answered { status } => call.status = Some(status),
            Did::Arrived | Did::HungUp => {}
        }
    }
}

async fn read_barrier(pool: &PgPool, gids: &[&str], cases: &mut Cases) {
    let rows: Vec<(String, String, String, String)> = sqlx::query_as(
        "select gid, branch_id, op, reason from dtm_barrier.barrier where gid = any($1) and barrier_id = '01'",
    )
    .bind(gids)
    .fetch_all(pool)
    .await
    .unwrap();
    for (gid, step, op, reason) in rows {
        cases.of(&gid).rows.push(Row { step, op, reason });
    }
}
