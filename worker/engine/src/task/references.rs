//! References to answers inside payloads: `{"$from": "stock", "path": "/reservation/id"}` stands for what the step `stock`
//! answered there (a JSON pointer, RFC 6901); `{"$literal": …}` stands for its value, in which nothing is interpreted.
//!
//! Works on the text that Postgres printed: what is not a reference is copied byte for byte, so numbers keep their digits
//! and a body is the same on every try (RACES 17).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::task::{Load, Weight};

/// Payloads are at most 64 levels deep. What somebody changed by hand may be deeper, and must not end the process.
const DEPTH_MAX: usize = 128;

/// The answers that a saga refers to, by step index.
#[derive(Debug, Clone, Default)]
pub struct Answers(Option<Arc<Kept>>);

#[derive(Debug)]
struct Kept {
    by_step: BTreeMap<usize, Arc<str>>,
    weights: Vec<Arc<Weight>>,
}

impl Answers {
    /// Reads what details.sql gives: an object of answers by position, from 1.
    ///
    /// # Errors
    /// Where it is not that.
    pub fn read(text: &str, weight: Weight) -> Result<Answers, serde_json::Error> {
        let answers: BTreeMap<usize, &RawValue> = serde_json::from_str(text)?;
        let by_step = answers
            .into_iter()
            .filter_map(|(position, answer)| Some((position.checked_sub(1)?, Arc::from(answer.get()))))
            .collect();
        Ok(Answers(Some(Arc::new(Kept { by_step, weights: vec![Arc::new(weight)] }))))
    }

    /// With one more, as Postgres prints it.
    pub fn with(&self, step: usize, answer: &str, load: &Load) -> Answers {
        let (mut by_step, mut weights) = match &self.0 {
            Some(kept) => (kept.by_step.clone(), kept.weights.clone()),
            None => Default::default(),
        };
        by_step.insert(step, Arc::from(answer));
        weights.push(Arc::new(load.add(answer.len())));
        Answers(Some(Arc::new(Kept { by_step, weights })))
    }

    /// What step `step` answered.
    pub fn get(&self, step: usize) -> Option<&str> {
        self.0.as_ref()?.by_step.get(&step).map(|answer| &**answer)
    }
}

/// Whether the text may hold references. A false alarm costs a walk, no more.
pub fn any(text: &[u8]) -> bool {
    memchr::memmem::find(text, br#""$from""#).is_some()
        || memchr::memmem::find(text, br#""$literal""#).is_some()
}

/// The names that references in `text` name.
pub fn names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut note = |name: &str, _: &str| {
        names.insert(name.to_owned());
        Ok(Cow::Borrowed("null"))
    };
    // What cannot be read names nothing; the INSERT lets none through.
    let _ = walk(text, &mut String::new(), usize::MAX, 0, &mut note);
    names
}

/// Puts answers in the place of references; `find` gives the answer of a step by its name, and `None` stands for null
/// where `or_null`.
///
/// The result has at most about `bytes_max` bytes: a small text can refer to a large answer many times.
///
/// # Errors
/// Which path of which step has no value, or that it becomes too long, in words.
pub fn resolve<'a>(
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

/// An object's members in the order of the text.
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

/// The value at a JSON pointer (RFC 6901), as the text prints it.
fn pointed_at<'a>(text: &'a str, path: &str) -> Option<&'a str> {
    let mut value = text.trim();
    for token in path.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        value = match value.as_bytes().first()? {
            b'{' => {
                let Members(members) = serde_json::from_str(value).ok()?;
                // The last of several wins, as in jsonb.
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
