//! References to answers in payloads. `{"$from": "stock", "path": "/reservation/id"}` is replaced
//! by the value at this JSON pointer (RFC 6901) in the answer of step `stock`. `{"$literal": …}`
//! is replaced by its value, which is copied without interpretation.
//!
//! All other text is copied byte for byte as Postgres printed it. Numbers therefore keep their
//! digits, and all attempts send the same body (docs/races.md, R17).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::flow::capacity::{MemoryShare, MemoryUse};

/// Upper bound on nesting. The INSERT allows 64 levels. A row edited by hand may be deeper and must
/// not overflow the stack.
const DEPTH_MAX: usize = 128;

/// The answers to which a saga refers, by step index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers(Option<Arc<Kept>>);

#[derive(Debug)]
struct Kept {
    by_step: BTreeMap<usize, Arc<str>>,
    weights: Vec<Arc<MemoryShare>>,
}

impl Answers {
    /// Decodes the result of details.sql: an object of answers by position from 1.
    ///
    /// # Errors
    /// The text has another structure.
    pub(crate) fn read(text: &str, weight: MemoryShare) -> Result<Answers, serde_json::Error> {
        let answers: BTreeMap<usize, &RawValue> = serde_json::from_str(text)?;
        let by_step = answers
            .into_iter()
            .filter_map(|(position, answer)| Some((position.checked_sub(1)?, Arc::from(answer.get()))))
            .collect();
        Ok(Answers(Some(Arc::new(Kept { by_step, weights: vec![Arc::new(weight)] }))))
    }

    /// Returns a copy with one more answer, as Postgres prints it.
    pub(crate) fn with(&self, step: usize, answer: &str, load: &MemoryUse) -> Answers {
        let (mut by_step, mut weights) = match &self.0 {
            Some(kept) => (kept.by_step.clone(), kept.weights.clone()),
            None => Default::default(),
        };
        by_step.insert(step, Arc::from(answer));
        weights.push(Arc::new(load.add(answer.len())));
        Answers(Some(Arc::new(Kept { by_step, weights })))
    }

    /// Returns the answer of step `step`.
    pub(crate) fn get(&self, step: usize) -> Option<&str> {
        self.0.as_ref()?.by_step.get(&step).map(|answer| &**answer)
    }
}

/// Whether the text may contain references. A false positive costs only a parse.
pub(crate) fn any(text: &[u8]) -> bool {
    memchr::memmem::find(text, br#""$from""#).is_some()
        || memchr::memmem::find(text, br#""$literal""#).is_some()
}

/// Returns the step names to which `text` refers.
pub(crate) fn names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut note = |name: &str, _: &str| {
        names.insert(name.to_owned());
        Ok(Cow::Borrowed("null"))
    };
    // Invalid text contributes no names. The INSERT refuses it.
    let _ = walk(text, &mut String::new(), usize::MAX, 0, &mut note);
    names
}

/// Replaces references by answers. `find` returns the answer of a step. A missing value becomes
/// null if `or_null` is set.
///
/// The result has about `bytes_max` bytes at most, because a small text can refer to a large answer
/// many times.
///
/// # Errors
/// A message for people: the step and path without a value, or that the result is too long.
pub(crate) fn resolve<'a>(
    text: &str,
    or_null: bool,
    bytes_max: usize,
    find: impl Fn(&str) -> Option<&'a str>,
) -> Result<String, String> {
    let mut resolved = String::with_capacity(text.len());
    let mut lookup = |name: &str, path: &str| match find(name).and_then(|answer| pointed_at(answer, path)) {
        Some(value) => Ok(Cow::Borrowed(value)),
        None if or_null => Ok(Cow::Borrowed("null")),
        None => Err(format!("the answer of step \"{name}\" has nothing at \"{path}\"")),
    };
    walk(text, &mut resolved, bytes_max, 0, &mut lookup)?;
    Ok(resolved)
}

/// The members of an object, in the order of the text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

type Lookup<'l, 'v> = dyn FnMut(&str, &str) -> Result<Cow<'v, str>, String> + 'l;

fn walk(
    text: &str,
    out: &mut String,
    bytes_max: usize,
    depth: usize,
    lookup: &mut Lookup<'_, '_>,
) -> Result<(), String> {
    let text = text.trim();
    if depth > DEPTH_MAX {
        return Err(format!("nested more than {DEPTH_MAX} deep"));
    }
    if out.len() > bytes_max {
        return Err(format!("longer than {bytes_max} bytes with the answers that it refers to"));
    }
    if !any(text.as_bytes()) {
        out.push_str(text);
        return Ok(());
    }
    let unreadable = |error: serde_json::Error| format!("cannot be read: {error}");
    match text.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).map_err(unreadable)?;
            if let [(key, value)] = &members[..]
                && key == "$literal"
            {
                out.push_str(value.get());
                return Ok(());
            }
            if let Some((_, name)) = members.iter().find(|(key, _)| key == "$from") {
                let name: String = serde_json::from_str(name.get()).map_err(unreadable)?;
                let path = members.iter().find(|(key, _)| key == "path").map(|(_, path)| path.get());
                let path: String =
                    path.map_or(Ok(String::new()), serde_json::from_str).map_err(unreadable)?;
                out.push_str(&lookup(&name, &path)?);
                return Ok(());
            }
            out.push('{');
            for (nth, (key, value)) in members.iter().enumerate() {
                out.push_str(if nth > 0 { ", " } else { "" });
                out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                out.push_str(": ");
                walk(value.get(), out, bytes_max, depth + 1, lookup)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(unreadable)?;
            out.push('[');
            for (nth, element) in elements.iter().enumerate() {
                out.push_str(if nth > 0 { ", " } else { "" });
                walk(element.get(), out, bytes_max, depth + 1, lookup)?;
            }
            out.push(']');
        }
        _ => out.push_str(text),
    }
    Ok(())
}

/// Returns the value at a JSON pointer (RFC 6901), as in the text.
fn pointed_at<'a>(text: &'a str, path: &str) -> Option<&'a str> {
    let mut value = text.trim();
    for token in path.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        value = match value.as_bytes().first()? {
            b'{' => {
                let Members(members) = serde_json::from_str(value).ok()?;
                // The last duplicate wins, as in jsonb.
                members.into_iter().rev().find(|(key, _)| *key == token)?.1.get()
            }
            b'[' => {
                let elements: Vec<&'a RawValue> = serde_json::from_str(value).ok()?;
                let is_index =
                    token == "0" || !token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit());
                elements.get(token.parse::<usize>().ok().filter(|_| is_index)?)?.get()
            }
            _ => return None,
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests;
