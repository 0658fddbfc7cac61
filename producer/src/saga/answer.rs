use serde::ser::{Serialize, SerializeMap, Serializer};

/// A reference to the answer of a step, made by [`answer_of`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerOf {
    step: String,
    path: String,
}

/// Returns a value that stands, anywhere in a payload or a result's mapping, for what a step
/// answered: all of its JSON when `path` is `""`, else the part that this JSON pointer (RFC 6901)
/// names, such as `/reservation/id`.
///
/// An action's payload may use steps that always come before it, a compensation's own payload also
/// its own step, and the result any step. Where the answer lacks the part, an action fails before
/// it is sent, and a compensation gets `null`.
///
/// ```
/// let payload = serde_json::json!({"reservation": pgsaga_producer::answer_of("stock", "/reservation/id")});
/// assert_eq!(payload.to_string(), r#"{"reservation":{"$from":"stock","path":"/reservation/id"}}"#);
/// ```
pub fn answer_of(step: impl Into<String>, path: impl Into<String>) -> AnswerOf {
    AnswerOf { step: step.into(), path: path.into() }
}

impl Serialize for AnswerOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("$from", &self.step)?;
        if !self.path.is_empty() {
            map.serialize_entry("path", &self.path)?;
        }
        map.end()
    }
}

/// A value that is sent as it is, made by [`literal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Literal<T>(T);

/// Returns a value that is sent as it is, whatever is in it: for payloads that hold keys `$from` or
/// `$literal` of their own, or that come from others.
pub fn literal<T: Serialize>(value: T) -> Literal<T> {
    Literal(value)
}

impl<T: Serialize> Serialize for Literal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("$literal", &self.0)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_an_answer_or_a_value_prints_as_one_writes_it() {
        let whole = serde_json::to_string(&answer_of("stock", "")).unwrap();
        assert_eq!(whole, r#"{"$from":"stock"}"#);
        let quoted = serde_json::to_string(&literal(answer_of("a", "/b"))).unwrap();
        assert_eq!(quoted, r#"{"$literal":{"$from":"a","path":"/b"}}"#);
    }
}
