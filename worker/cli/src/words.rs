//! Values in words for a person.

use std::time::Duration;

use icu_properties::props::{
    BidiControl, BinaryProperty, DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup,
    JoinControl, VariationSelector,
};
use icu_properties::{CodePointMapData, CodePointSetData};
use pgsaga_sql::FORMAT;
use pgsaga_worker::db::Time;

pub(crate) fn time(at: Time) -> String {
    at.to_string()
}

/// Formats a duration with at most two units.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let two = |one: u64, unit: &str, other: u64, smaller: &str| {
        if other == 0 { format!("{one} {unit}") } else { format!("{one} {unit} {other} {smaller}") }
    };
    match seconds {
        0 if time < Duration::from_millis(10) => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        0 => format!("{} ms", time.as_millis()),
        1..60 if time.as_millis() % 1000 < 100 => format!("{seconds} s"),
        1..60 => format!("{seconds}.{} s", time.as_millis() % 1000 / 100),
        60..3600 => two(minutes, "min", seconds % 60, "s"),
        3600..86_400 => two(hours, "h", minutes, "min"),
        _ => two(days, "d", hours, "h"),
    }
}

/// Formats a duration in microseconds. Negative values, which appear after the database's clock
/// stepped back, are shown as zero.
pub(crate) fn span_us(us: i64) -> String {
    span(Duration::from_micros(us.try_into().unwrap_or(0)))
}

pub(crate) fn spans_us(least: i64, most: i64) -> String {
    let (least, most) = (span_us(least), span_us(most));
    if least == most { least } else { format!("{least} to {most}") }
}

pub(crate) fn when(worker: Option<i64>, due_ms: i64) -> String {
    match worker {
        Some(worker) => format!("held by worker {worker}"),
        None if due_ms > 0 => format!("in {}", span_us(due_ms.saturating_mul(1000))),
        None => format!("due for {}", span_us(due_ms.saturating_mul(-1000))),
    }
}

/// Why workers of this release do not run a task, if its row format is newer than they know.
pub(crate) fn newer_format(format: i16) -> Option<String> {
    (format > FORMAT).then(|| {
        format!("its row has format {format}, workers of this release know formats up to {FORMAT}: a newer `pgsaga work` runs it")
    })
}

pub(crate) fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

pub(crate) fn counted(number: i64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Up to `names_max` names, and the number of further names.
pub(crate) fn some_names(names: &[&str], names_max: usize) -> String {
    let more = match names.len().saturating_sub(names_max) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names[..names.len().min(names_max)].join(", "))
}

fn has<P: BinaryProperty>(character: char) -> bool {
    CodePointSetData::new::<P>().contains(character)
}

/// Whether a character moves the cursor, changes colours, changes the direction of writing, or has
/// no visible shape. Joiners and variation selectors belong to the visible character before them.
pub(crate) fn is_unprintable(character: char) -> bool {
    // The blank braille pattern has the category of symbols, and the separators of lines and
    // paragraphs have that of spaces.
    let is_blank = matches!(character, '\u{2028}' | '\u{2029}' | '\u{2800}');
    let is_ignorable = has::<DefaultIgnorableCodePoint>(character);
    let chooses_form = || has::<VariationSelector>(character) || character == '\u{34f}';
    character.is_control()
        || is_blank
        || has::<BidiControl>(character)
        || is_ignorable && !has::<JoinControl>(character) && !chooses_form()
}

/// Whether a text contains a visible character, besides spaces and characters that only join or
/// modify others.
pub(crate) fn is_seen(text: &str) -> bool {
    let changes_others = |character| {
        let category = CodePointMapData::<GeneralCategory>::new().get(character);
        has::<DefaultIgnorableCodePoint>(character) || GeneralCategoryGroup::Mark.contains(category)
    };
    text.chars().any(|character| {
        !character.is_whitespace() && !is_unprintable(character) && !changes_others(character)
    })
}

/// Outside text as one line for a terminal, of at most `chars_max` characters. Unprintable
/// characters become spaces.
pub(crate) fn printable(text: &str, chars_max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(chars_max * 4));
    for (nth, character) in text.chars().enumerate() {
        if nth == chars_max {
            shown.push('…');
            break;
        }
        shown.push(if is_unprintable(character) { ' ' } else { character });
    }
    shown
}

pub(crate) fn printable_lines(text: &str) -> String {
    let shown = |character| if character != '\n' && is_unprintable(character) { ' ' } else { character };
    text.chars().map(shown).collect()
}

/// Returns the same JSON in a form that is safe on a terminal. Escapes unprintable characters that
/// JSON allows unescaped.
pub(crate) fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        // JSON has no character below the space except white space between values. Beyond the basic
        // plane an escape is a pair.
        if character > '~' && is_unprintable(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1000, 1_234_567, -1000].map(count), ["0", "999", "1,000", "1,234,567", "-1,000"]);
    }

    #[test]
    fn a_span_has_two_units_at_most() {
        let spans = [0.0004, 0.02, 1.25, 12.04, 60.0, 61.5, 3600.0, 3720.0, 86_400.0, 90_000.0, 864_000.0];
        let said = spans.map(|seconds| span(Duration::from_secs_f64(seconds)));
        assert_eq!(
            said,
            [
                "0.4 ms",
                "20 ms",
                "1.2 s",
                "12 s",
                "1 min",
                "1 min 1 s",
                "1 h",
                "1 h 2 min",
                "1 d",
                "1 d 1 h",
                "10 d"
            ]
        );
        assert_eq!((span_us(-1), spans_us(1000, 2_000_000)), ("0.0 ms".into(), "1.0 ms to 2 s".into()));
    }

    #[test]
    fn text_from_outside_cannot_write_to_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\nc\u{9b}d\u{202e}e", 20), "a [31mb c d e");
        assert_eq!(printable_lines("a\x1b[31mb\nc\u{9b}d\u{202e}e"), "a [31mb\nc d e");
        assert_eq!(printable("äöüß", 3), "äöü…");
        assert_eq!(printable("äöü", 3), "äöü");
    }

    #[test]
    fn what_takes_no_place_is_known_and_what_is_seen_is_left() {
        for hidden in [
            '\u{200b}',
            '\u{2060}',
            '\u{feff}',
            '\u{ad}',
            '\u{3164}',
            '\u{115f}',
            '\u{1160}',
            '\u{ffa0}',
            '\u{180e}',
            '\u{2800}',
            '\u{e0000}',
            '\u{e0041}',
            '\u{e007f}',
        ] {
            assert!(is_unprintable(hidden), "{hidden:?}");
            assert!(!is_seen(&format!(" {hidden}")), "{hidden:?}");
        }
        for seen in ["a", "é", "한글", "می\u{200c}خواهم", "👩\u{200d}💻", "❤\u{fe0f}"] {
            assert!(is_seen(seen) && !seen.contains(is_unprintable), "{seen:?}");
        }
        for nothing in ["", " \u{a0}\u{3000}", "\u{200d}\u{200c}", "\u{fe0f}", "\u{301}\u{34f}"] {
            assert!(!is_seen(nothing), "{nothing:?}");
        }
    }

    #[test]
    fn json_stays_the_same_and_can_be_shown() {
        let text = "a\u{9b}31m\u{7f}\u{202e}\u{61c}\n\u{1b}é😀\u{feff}\u{e0041}";
        let json = serde_json::json!({ text: [text, 1.5] });
        for written in [json.to_string(), serde_json::to_string_pretty(&json).unwrap()] {
            let shown = printable_json(&written);
            assert!(!shown.replace('\n', "").contains(is_unprintable), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), json);
        }
    }
}
