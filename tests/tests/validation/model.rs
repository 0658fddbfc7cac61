//! The rules of order, pivot and references once more, as plainly as they can be said and without
//! words for errors.

use serde_json::{Map, Value};

/// `progress` and `answers` of a saga whose steps are well one by one; `None` when it is to be
/// refused.
pub(crate) fn row(saga: &str) -> Option<(Option<String>, bool)> {
    let saga: Value = serde_json::from_str(saga).unwrap();
    let steps = saga["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    let position = |name: &Value| names.iter().position(|known| Some(*known) == name.as_str());

    let mut waits = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        waits.push(match step.get("after") {
            None => index.checked_sub(1).into_iter().collect::<Vec<_>>(),
            Some(after) => after.as_array().unwrap().iter().map(position).collect::<Option<_>>()?,
        });
        let mut once = waits[index].clone();
        once.sort_unstable();
        once.dedup();
        if once.len() < waits[index].len() {
            return None;
        }
    }

    // Floyd and Warshall.
    let count = steps.len();
    let mut before = vec![vec![false; count]; count];
    for (step, waits) in waits.iter().enumerate() {
        waits.iter().for_each(|&earlier| before[earlier][step] = true);
    }
    for middle in 0..count {
        for first in 0..count {
            for last in 0..count {
                before[first][last] |= before[first][middle] && before[middle][last];
            }
        }
    }
    if (0..count).any(|step| before[step][step]) {
        return None;
    }

    let pivots: Vec<_> =
        (0..count).filter(|&step| steps[step].get("pivot") == Some(&Value::Bool(true))).collect();
    match pivots[..] {
        [] => {}
        [pivot] => {
            for step in (0..count).filter(|&step| step != pivot && !before[step][pivot]) {
                if !before[pivot][step] || steps[step].get("compensate").is_some() {
                    return None;
                }
            }
        }
        _ => return None,
    }

    let mut references = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        for key in ["payload", "compensate_payload"] {
            let from = references.len();
            if let Some(payload) = step.get(key) {
                collect(payload, &mut references)?;
            }
            for reference in &references[from..] {
                let named = position(&reference["$from"])?;
                if !(before[named][index] || named == index && key == "compensate_payload") {
                    return None;
                }
            }
        }
    }
    if let Some(mapping) = saga.get("result_mapping") {
        let from = references.len();
        collect(mapping, &mut references)?;
        for reference in &references[from..] {
            position(&reference["$from"])?;
        }
    }

    let sequential =
        waits.iter().enumerate().all(|(step, waits)| waits[..] == *step.checked_sub(1).as_slice());
    let progress = waits.iter().map(|waits| if waits.is_empty() { 'a' } else { '.' }).collect();
    Some(((!sequential).then_some(progress), !references.is_empty()))
}

/// All references in a value; `None` where one is malformed.
fn collect(value: &Value, references: &mut Vec<Map<String, Value>>) -> Option<()> {
    match value {
        Value::Array(elements) => elements.iter().try_for_each(|element| collect(element, references)),
        Value::Object(object) if object.contains_key("$from") => {
            let path = object.get("path").map_or(Some(""), Value::as_str)?;
            let tokens_are_well = path.replace("~0", "").replace("~1", "").find('~').is_none();
            references.push(object.clone());
            (object.keys().all(|key| key == "$from" || key == "path")
                && (path.is_empty() || path.starts_with('/'))
                && tokens_are_well)
                .then_some(())
        }
        Value::Object(object) if object.contains_key("$literal") => (object.len() == 1).then_some(()),
        Value::Object(object) => object.values().try_for_each(|value| collect(value, references)),
        _ => Some(()),
    }
}
