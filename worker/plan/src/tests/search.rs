//! Visits every state that a saga can reach.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::StepGraph;
use super::invariant::Broken;
use super::model::{Budget, Model, Planner, Rules, World};
use super::moves::Move;

/// One graph to search, and what may happen to it.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) graph: StepGraph,
    /// What a failure names.
    pub(super) name: String,
    /// The gate or decision that is the point of no return, as the mode says.
    pub(super) decision: Option<usize>,
    pub(super) rules: Rules,
    pub(super) left: Budget,
    /// From this try on an op comes to an end.
    pub(super) last_try: u32,
}

/// How much was visited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Visited {
    /// Shapes, each with each of its limits.
    pub(super) cases: usize,
    pub(super) states: usize,
    pub(super) moves: usize,
    pub(super) ends: usize,
}

/// Searches all of them on every core. Panics with the shortest way to what does not hold.
pub(super) fn visit_all(jobs: &[Job], planner: Planner) -> Visited {
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Visited { cases: jobs.len(), ..Visited::default() });
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (last_try, decision) = (job.last_try, job.decision);
            let world = World { last_try, decision, ..World::new(&job.graph, planner, job.rules) };
            let visited = visit(&world, job.left).unwrap_or_else(|broken| {
                let way = told(shortest(world, job.left));
                panic!("{:?} in {}:\n{way}", broken.invariant, job.name)
            });
            let mut total = total.lock().unwrap();
            total.states += visited.states;
            total.moves += visited.moves;
            total.ends += visited.ends;
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    total.into_inner().unwrap()
}

fn told(found: Option<(Vec<Move>, Broken)>) -> String {
    let Some((way, broken)) = found else { return String::new() };
    let lines = way.iter().map(|step| format!("  {step}\n"));
    lines.chain([format!("  {:?}: {}", broken.invariant, broken.what)]).collect()
}

/// 128 bits for a state: two of them never agree by chance.
fn print(model: &Model) -> u128 {
    let (mut one, mut two) = (0u64, 0u64);
    for word in model.packed() {
        one = (one.rotate_left(29) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        two = (two.rotate_left(31) ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        one ^= one >> 32;
        two ^= two >> 29;
    }
    u128::from(one) << 64 | u128::from(two)
}

/// A print needs no second hash.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {}
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

type Prints<T> = HashMap<u128, T, BuildHasherDefault<Same>>;

/// Visits everything, depth first.
fn visit(world: &World<'_>, left: Budget) -> Result<Visited, Broken> {
    let mut visited = Visited::default();
    let mut known: HashSet<u128, BuildHasherDefault<Same>> = HashSet::default();
    let mut open = vec![world.inserted(left)];
    let mut moves = Vec::new();
    while let Some(model) = open.pop() {
        world.moves(&model, &mut moves);
        visited.ends += usize::from(model.ended.is_some());
        let mut place = 0;
        while let Some(&next) = moves.get(place) {
            place += 1;
            let after = world.apply(&model, next)?;
            moves.extend(next.with_reply_lost(world, &model, &after));
            if known.insert(print(&after)) {
                open.push(after);
            }
        }
        visited.moves += moves.len();
    }
    visited.states = known.len();
    Ok(visited)
}

/// The shortest way to a state where something does not hold.
pub(super) fn shortest(mut world: World<'_>, left: Budget) -> Option<(Vec<Move>, Broken)> {
    // Steps keep their places, for those who read it.
    world.twins.clear();
    let start = world.inserted(left);
    let mut came_by: Prints<Option<(Model, Move)>> = HashMap::default();
    came_by.insert(print(&start), None);
    let mut open = VecDeque::from([start]);
    let mut moves = Vec::new();
    while let Some(model) = open.pop_front() {
        world.moves(&model, &mut moves);
        let mut place = 0;
        while let Some(&next) = moves.get(place) {
            place += 1;
            let after = match world.apply(&model, next) {
                Ok(after) => after,
                Err(broken) => return Some((way(&came_by, model, next), broken)),
            };
            moves.extend(next.with_reply_lost(&world, &model, &after));
            if let Entry::Vacant(entry) = came_by.entry(print(&after)) {
                entry.insert(Some((model, next)));
                open.push_back(after);
            }
        }
    }
    None
}

fn way(came_by: &Prints<Option<(Model, Move)>>, mut at: Model, last: Move) -> Vec<Move> {
    let mut way = vec![last];
    while let Some(Some((before, by))) = came_by.get(&print(&at)) {
        way.push(*by);
        at = *before;
    }
    way.reverse();
    way
}
