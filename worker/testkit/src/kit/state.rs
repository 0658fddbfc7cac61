//! What a participant's state is, and how it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// A state, taken apart: each number or text by its place. The elements of an array are counted,
/// because their order says nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State(BTreeMap<String, Leaf>);

#[derive(Debug, Clone, PartialEq)]
enum Leaf {
    Whole(i128),
    Number(f64),
    Text(String),
}

/// What is different between two states, by place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Change(BTreeMap<String, String>);

impl State {
    /// The state during the saga of this gid. Whatever has the gid in it compares as if each saga
    /// had the same one.
    pub(super) fn read(state: &Value, gid: &str) -> State {
        let mut leaves = BTreeMap::new();
        take_apart(state, String::new(), gid, &mut leaves);
        State(leaves)
    }

    /// What became different until `later`.
    pub(super) fn change_to(&self, later: &State) -> Change {
        let places: BTreeSet<&String> = self.0.keys().chain(later.0.keys()).collect();
        let changed = places.into_iter().filter_map(|place| {
            let change = change(self.0.get(place), later.0.get(place))?;
            Some((place.clone(), change))
        });
        Change(changed.collect())
    }
}

impl Change {
    pub(super) fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("no change");
        }
        for (nth, (place, change)) in self.0.iter().enumerate() {
            let comma = if nth > 0 { ", " } else { "" };
            write!(f, "{comma}{}: {change}", if place.is_empty() { "state" } else { place })?;
        }
        Ok(())
    }
}

fn take_apart(value: &Value, place: String, gid: &str, leaves: &mut BTreeMap<String, Leaf>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let dot = if place.is_empty() { "" } else { "." };
                take_apart(value, format!("{place}{dot}{}", masked(key, gid)), gid, leaves);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                let element = format!("{place}[{}]", masked(&element.to_string(), gid));
                let count = leaves.entry(element).or_insert(Leaf::Whole(0));
                if let Leaf::Whole(count) = count {
                    *count += 1;
                }
            }
        }
        Value::Null => {}
        value => drop(leaves.insert(place, leaf(value, gid))),
    }
}

fn leaf(value: &Value, gid: &str) -> Leaf {
    let whole = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    match (whole, value.as_f64()) {
        (Some(whole), _) => Leaf::Whole(whole),
        (None, Some(number)) => Leaf::Number(number),
        (None, None) => Leaf::Text(masked(&value.to_string(), gid)),
    }
}

fn masked(text: &str, gid: &str) -> String {
    text.replace(gid, "GID")
}

fn change(before: Option<&Leaf>, after: Option<&Leaf>) -> Option<String> {
    let is_text = |leaf: Option<&Leaf>| matches!(leaf, Some(Leaf::Text(_)));
    let is_whole = |leaf: Option<&Leaf>| matches!(leaf, None | Some(Leaf::Whole(_)));
    if before == after {
        None
    } else if is_text(before) || is_text(after) {
        Some(format!("{} to {}", text(before), text(after)))
    } else if is_whole(before) && is_whole(after) {
        let whole = |leaf: Option<&Leaf>| if let Some(Leaf::Whole(whole)) = leaf { *whole } else { 0 };
        let by = whole(after).saturating_sub(whole(before));
        (by != 0).then(|| format!("{by:+}"))
    } else {
        // Sums of decimal fractions differ in their last bits: the larger they are, the earlier.
        let (before, after) = (number(before), number(after));
        let digits = (14.0 - before.abs().max(after.abs()).max(1.0).log10().ceil()).clamp(0.0, 6.0);
        let unit = 10_f64.powf(digits);
        let by = ((after - before) * unit).round() / unit;
        (by != 0.0).then(|| format!("{by:+}"))
    }
}

/// What is not there counts as 0.
fn number(leaf: Option<&Leaf>) -> f64 {
    match leaf {
        Some(Leaf::Whole(whole)) => *whole as f64,
        Some(Leaf::Number(number)) => *number,
        _ => 0.0,
    }
}

fn text(leaf: Option<&Leaf>) -> String {
    match leaf {
        None => "nothing".to_owned(),
        Some(Leaf::Whole(whole)) => whole.to_string(),
        Some(Leaf::Number(number)) => number.to_string(),
        Some(Leaf::Text(text)) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(before: &Value, after: &Value) -> String {
        State::read(before, "kit-1").change_to(&State::read(after, "kit-1")).to_string()
    }

    #[test]
    fn numbers_change_by_their_difference_and_all_else_from_one_to_the_other() {
        let before = json!({"stock": 5, "cash": 0.1, "open": true, "by": {"a": 1}});
        assert_eq!(change(&before, &before), "no change");
        let after = json!({"stock": 3, "cash": 0.3, "open": false, "by": {"a": 1, "b": "x"}});
        assert_eq!(
            change(&before, &after),
            r#"by.b: nothing to "x", cash: +0.2, open: true to false, stock: -2"#
        );
        assert_eq!(change(&json!(1), &json!(2)), "state: +1");
    }

    /// A place that a number appears at was zero before: `{"holds": {}}` and `{"holds": {"a": 0}}`
    /// are the same.
    #[test]
    fn a_count_that_is_not_there_is_zero() {
        assert_eq!(change(&json!({}), &json!({"a": 0})), "no change");
        assert_eq!(change(&json!({"a": 2}), &json!({})), "a: -2");
    }

    #[test]
    fn the_elements_of_an_array_are_counted_and_a_gid_is_like_another() {
        let before = json!({"holds": ["x", "x"]});
        let after = json!({"holds": ["x", {"gid": "kit-1"}]});
        assert_eq!(change(&before, &after), r#"holds["x"]: -1, holds[{"gid":"GID"}]: +1"#);
        assert_eq!(State::read(&json!({"kit-1": 1}), "kit-1"), State::read(&json!({"kit-2": 1}), "kit-2"));
    }

    /// A participant that answered with a number can be compared with one that lost it.
    #[test]
    fn numbers_of_other_kinds_compare() {
        assert_eq!(change(&json!({"a": 1}), &json!({"a": 1.5})), "a: +0.5");
        assert_eq!(change(&json!({"a": null}), &json!({"a": 15.13})), "a: +15.13");
        assert_eq!(change(&json!({"a": 99e9}), &json!({"a": 99e9 + 0.16})), "a: +0.16");
        assert_eq!(change(&json!({"a": 99e9 + 0.16}), &json!({"a": 99e9 + 0.32})), "a: +0.16");
        assert_eq!(change(&json!({"a": 1}), &json!({"a": "1"})), r#"a: 1 to "1""#);
        assert_eq!(
            change(
                &json!({"a": 9_223_372_036_854_775_807_i64}),
                &json!({"a": -9_223_372_036_854_775_807_i64})
            ),
            "a: -18446744073709551614"
        );
    }
}
