//! The saga as a Mermaid flowchart: the steps in their order with their states, and the
//! compensations against the order. Text from outside is written as character codes, so that it
//! cannot end a label or contain markup.

use std::collections::{BTreeSet, HashMap};

use pgsaga_plan::{Outcome, State};
use pgsaga_sql::contract::SagaStatus;

use super::standing;
use crate::error::Error;
use crate::operate::read::saga::{Saga, Step, Tries};
use crate::output::out;
use crate::words::{counted, is_unprintable};

/// Up to this number of steps, each step is a node. Beyond it, similar steps share a node.
const STEPS_MAX: usize = 60;
/// Mermaid draws at most 500 edges and 50,000 characters, unless its host allows more.
const NODES_MAX: usize = 120;
const EDGES_MAX: usize = 300;
const MESSAGE_CHARS_MAX: usize = 80;

const CLASSES: &str = "  classDef waits fill:#fff,stroke:#868e96,color:#000
  classDef runs fill:#d0ebff,stroke:#1971c2,color:#000
  classDef done fill:#d3f9d8,stroke:#2b8a3e,color:#000
  classDef refused fill:#ffe3e3,stroke:#c92a2a,color:#000
  classDef doubtful fill:#fff3bf,stroke:#e67700,color:#000
  classDef undone fill:#f3d9fa,stroke:#862e9c,color:#000
  classDef stuck fill:#c92a2a,stroke:#000,color:#fff";

pub(crate) fn print(saga: &Saga) -> Result<(), Error> {
    out(flowchart(saga))
}

fn flowchart(saga: &Saga) -> String {
    let graph = Graph::of(saga);
    let mut text = format!(
        "---\ntitle: \"saga {}: {}\"\n---\nflowchart TD\n",
        title(&saga.head.gid),
        saga.head.status.as_str()
    );
    let mut line = |line: String| text.push_str(&format!("  {line}\n"));
    if let Some(reason) = saga.head.reason.as_ref().or(saga.head.abort_reason.as_ref()) {
        line(format!("reason[\"{}\"]:::waits", label(reason, MESSAGE_CHARS_MAX * 3)));
    }
    for (number, group) in graph.groups.iter().enumerate().take(NODES_MAX) {
        let state = saga.steps[group[0]].state;
        let (action, undo) = labels(saga, group);
        let ran = if undo.is_some() { ran(saga, group) } else { class(state) };
        line(format!("s{number}[\"{action}\"]:::{ran}"));
        if let Some(undo) = undo {
            line(format!("c{number}[\"{undo}\"]:::{}", class(state)));
        }
    }
    let edges = edges(saga, &graph);
    let drawn = edges.iter().filter(|edge| edge.is_drawn).take(EDGES_MAX);
    drawn.clone().for_each(|edge| line(edge.text.clone()));
    let left_out = edges.len() - drawn.count();
    let nodes_left_out = graph.groups.len().saturating_sub(NODES_MAX);
    if nodes_left_out + left_out > 0 {
        line(format!(
            "more[\"{nodes_left_out} more nodes and {left_out} more arrows are left out\"]:::waits"
        ));
    }
    text.push_str(CLASSES);
    text
}

struct Edge {
    text: String,
    /// Whether the nodes of both ends are drawn.
    is_drawn: bool,
}

/// The arrows of the order, and those of the compensations against the order.
fn edges(saga: &Saga, graph: &Graph) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (number, after) in graph.after.iter().enumerate() {
        edges.extend(after.iter().map(|&before| Edge {
            text: format!("s{before} --> s{number}"),
            is_drawn: number.max(before) < NODES_MAX,
        }));
    }
    let undone = graph.groups.iter().enumerate().filter(|(_, group)| undoes(saga, group));
    for (number, _) in undone {
        let later =
            graph.after.iter().take(NODES_MAX).enumerate().filter(|(_, after)| after.contains(&number));
        let mut froms: Vec<String> = later
            .filter_map(|(later, _)| match &graph.groups[later] {
                group if undoes(saga, group) => Some(format!("c{later}")),
                group if saga.steps[group[0]].acted.tries > 0 => Some(format!("s{later}")),
                _ => None,
            })
            .collect();
        if froms.is_empty() {
            froms.push(format!("s{number}"));
        }
        edges.extend(
            froms
                .into_iter()
                .map(|from| Edge { text: format!("{from} -.-> c{number}"), is_drawn: number < NODES_MAX }),
        );
    }
    edges
}

/// Groups of steps that share a node, and their order.
struct Graph {
    groups: Vec<Vec<usize>>,
    after: Vec<BTreeSet<usize>>,
}

impl Graph {
    fn of(saga: &Saga) -> Graph {
        let steps = &saga.steps;
        let mut group_of: Vec<usize> = (0..steps.len()).collect();
        if steps.len() > STEPS_MAX {
            let mut successors = vec![Vec::new(); steps.len()];
            for (index, step) in steps.iter().enumerate() {
                for &before in &step.after {
                    successors[before].push(index);
                }
            }
            // Steps with the same predecessors and successors form a group, and so does a sequence
            // of steps.
            let mut alike: HashMap<(&[usize], &[usize], State), usize> = HashMap::new();
            for (index, step) in steps.iter().enumerate() {
                let own = (step.after.as_slice(), successors[index].as_slice(), step.state);
                group_of[index] = *alike.entry(own).or_insert(index);
            }
            let after = group_edges(steps, &group_of);
            let mut successors_of = vec![BTreeSet::new(); steps.len()];
            for (group, after) in after.iter().enumerate() {
                for &before in after {
                    successors_of[before].insert(group);
                }
            }
            let joins: Vec<Option<usize>> = (0..steps.len())
                .map(|group| match (after[group].first(), after[group].len()) {
                    (Some(&before), 1) if successors_of[before].len() == 1 => {
                        (steps[before].state == steps[group].state).then_some(before)
                    }
                    _ => None,
                })
                .collect();
            for group in &mut group_of {
                // Bounded by the number of steps, because a row that was changed by hand may
                // contain a cycle.
                for _ in 0..steps.len() {
                    *group = joins[*group].unwrap_or(*group);
                }
            }
        }
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (index, group) in group_of.iter_mut().enumerate() {
            *group = *numbers.entry(*group).or_insert(groups.len());
            if *group == groups.len() {
                groups.push(Vec::new());
            }
            groups[*group].push(index);
        }
        let mut after = group_edges(steps, &group_of);
        after.truncate(groups.len());
        Graph { groups, after }
    }
}

/// The groups that each group waits for.
fn group_edges(steps: &[Step], group_of: &[usize]) -> Vec<BTreeSet<usize>> {
    let mut after = vec![BTreeSet::new(); steps.len()];
    for (index, step) in steps.iter().enumerate() {
        let others =
            step.after.iter().map(|&before| group_of[before]).filter(|&before| before != group_of[index]);
        after[group_of[index]].extend(others);
    }
    after
}

/// The labels of a group's actions, and of its compensations if one was begun.
fn labels(saga: &Saga, group: &[usize]) -> (String, Option<String>) {
    let first = &saga.steps[group[0]];
    let undoes = undoes(saga, group);
    let last = &saga.steps[group[group.len() - 1]];
    let word = standing::word(saga, group[0]);
    if group.len() > 1 {
        let names = format!("{} … {}", first.name, last.name);
        let action = format!(
            "{}<br/>{} steps{}",
            label(&names, 140),
            group.len(),
            if undoes { "" } else { ", each " }
        );
        let action = if undoes { action } else { action + word };
        let undo =
            undoes.then(|| format!("undo {}<br/>{} steps, each {word}", label(&names, 140), group.len()));
        return (action, undo);
    }
    let pivot = if first.pivot { " (pivot)" } else { "" };
    let name = label(&first.name, 64);
    let own = if undoes { if first.acted.succeeded { "done" } else { "may have happened" } } else { word };
    let action = format!("{name}{pivot}<br/>{own}{}", told(&first.acted));
    (action, undoes.then(|| format!("undo {name}<br/>{word}{}", told(&first.undone))))
}

/// The number of attempts, and the message of the last one if it did not succeed.
fn told(tries: &Tries) -> String {
    if tries.tries == 0 {
        return String::new();
    }
    let mut text = format!(", {}", counted(tries.tries, "try", "tries"));
    if !tries.succeeded {
        let outcome = tries.outcome.map(Outcome::as_str).unwrap_or_default();
        let code = tries.status_code.map(|code| format!(" {code}")).unwrap_or_default();
        text += &format!("<br/>{outcome}{code}");
        if let Some(message) = &tries.message {
            text += &format!("<br/>{}", label(message, MESSAGE_CHARS_MAX));
        }
    }
    text
}

/// Whether a compensation of the group was queued or attempted.
fn undoes(saga: &Saga, group: &[usize]) -> bool {
    group.iter().any(|&index| {
        let step = &saga.steps[index];
        step.undone.tries > 0 || matches!(step.state, State::Undoing | State::StuckUndoing)
    })
}

/// The class of an action whose compensation is drawn as well.
fn ran(saga: &Saga, group: &[usize]) -> &'static str {
    if saga.steps[group[0]].acted.succeeded { "done" } else { "doubtful" }
}

fn class(state: State) -> &'static str {
    match state {
        State::Waiting | State::Reported => "waits",
        State::Acting | State::Undoing => "runs",
        State::Done => "done",
        State::NoEffect => "refused",
        State::MaybeDone => "doubtful",
        State::Undone => "undone",
        State::StuckActing | State::StuckUndoing => SagaStatus::Stuck.as_str(),
    }
}

/// A gid inside the quoted title, which is YAML. Characters that no gid has, because a person
/// changed the row by hand, are left out.
fn title(gid: &str) -> String {
    gid.chars()
        .take(128)
        .filter(|&character| character.is_ascii_alphanumeric() || "._:-".contains(character))
        .collect()
}

/// Text inside a quoted label. Letters, digits, spaces and some punctuation between letters stay.
/// Every other character becomes its character code, which Mermaid decodes only after it has parsed
/// the diagram.
fn label(text: &str, chars_max: usize) -> String {
    let chars: Vec<char> = text.chars().take(chars_max + 1).collect();
    let mut label = String::new();
    for (nth, &character) in chars.iter().enumerate() {
        let inside = nth > 0
            && chars[nth - 1].is_alphanumeric()
            && chars.get(nth + 1).is_some_and(|next| next.is_alphanumeric());
        match character {
            _ if nth == chars_max => label.push('…'),
            ' ' => label.push(' '),
            '.' | '-' | '_' if inside => label.push(character),
            '…' | ',' => label.push(character),
            _ if character.is_alphanumeric() => label.push(character),
            _ if is_unprintable(character) => label.push(' '),
            _ => label.push_str(&format!("#{};", u32::from(character))),
        }
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_leave_its_label() {
        let nasty = "\"]; click s0 href \"javascript:alert(1)\"\n%% <script>`#quot;`\\n</script> 1. a_b-c";
        let label = label(nasty, 200);
        for forbidden in ['"', '<', '>', '[', ']', '(', ')', '`', '%', '\n', '\\', '/', '&', ':'] {
            assert!(!label.contains(forbidden), "{forbidden:?} is in {label}");
        }
        // Every # and ; belongs to a character code.
        let codes = label.split('#').skip(1);
        for code in codes {
            let (digits, _) = code.split_once(';').unwrap();
            assert!(!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()), "{label}");
        }
        assert!(label.ends_with("1#46; a_b-c"), "{label}");
    }

    #[test]
    fn a_long_label_is_cut() {
        assert_eq!(label("abcdef", 3), "abc…");
        assert_eq!(label("abc", 3), "abc");
    }
}
