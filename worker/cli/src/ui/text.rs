//! Text of others (participants, applications, people), shown as text: messages, labels and gids.

use maud::{Markup, PreEscaped, html};

use crate::words::is_unprintable;

/// Upper bound on the characters of a text that is shown unfolded.
const LINE_CHARS_MAX: usize = 160;
/// Characters of a folded text that stay visible.
const SUMMARY_CHARS: usize = 100;
/// Upper bound on the characters of a text.
pub(crate) const CHARS_MAX: usize = 20_000;

/// The whole text. Unprintable characters are shown as signs, and the text has its own direction.
pub(crate) fn text(text: &str) -> Markup {
    let mut shown = String::with_capacity(text.len() + 16);
    let mut plain = String::new();
    for character in text.chars() {
        if is_unprintable(character) {
            shown.push_str(&html! { (plain) }.into_string());
            plain.clear();
            shown.push_str(&sign(character).into_string());
            if character == '\n' {
                shown.push('\n');
            }
        } else {
            plain.push(character);
        }
    }
    shown.push_str(&html! { (plain) }.into_string());
    html! { bdi { (PreEscaped(shown)) } }
}

/// Like [`text`], but a long text is folded.
pub(crate) fn folded(whole: &str) -> Markup {
    folded_first(whole, whole.chars().count())
}

/// Like [`folded`], for a text of `chars` characters of which only `first` was read.
pub(crate) fn folded_first(first: &str, chars: usize) -> Markup {
    if chars <= LINE_CHARS_MAX && !first.contains('\n') {
        return text(first);
    }
    let summary: String =
        first.chars().take(SUMMARY_CHARS).map(|c| if c == '\n' { ' ' } else { c }).collect();
    let first: String = first.chars().take(CHARS_MAX).collect();
    html! {
        details {
            summary { (text(&summary)) "… " span.muted { "(" (crate::words::count(chars as i64)) " characters)" } }
            pre { (text(&first)) }
            @if chars > CHARS_MAX { p.muted { "The rest is in " code { "pgsaga show --json" } "." } }
        }
    }
}

/// A sign for a character that is invisible or changes how its neighbours look.
fn sign(character: char) -> Markup {
    let code = format!("U+{:04X}", u32::from(character));
    // Unicode has a picture for each control character.
    let picture = match character {
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)),
        '\u{7f}' => Some('\u{2421}'),
        _ => None,
    };
    html! { span.sign title=(code) { @if let Some(picture) = picture { (picture) } @else { (code) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_of_others_is_text() {
        let shown = text("<script>alert('1')</script> & \"x\"").into_string();
        assert_eq!(shown, "<bdi>&lt;script&gt;alert('1')&lt;/script&gt; &amp; &quot;x&quot;</bdi>");
        let long = format!("<b>{}", "x".repeat(300));
        assert!(!folded(&long).into_string().contains("<b>"), "folded as well");
    }

    #[test]
    fn what_cannot_be_seen_is_shown() {
        let shown = text("a\u{1b}[31m\u{202e}b\n\u{9b}\u{7f}").into_string();
        assert_eq!(
            shown,
            "<bdi>a<span class=\"sign\" title=\"U+001B\">␛</span>[31m<span class=\"sign\" title=\"U+202E\">U+202E</span>b\
             <span class=\"sign\" title=\"U+000A\">␊</span>\n<span class=\"sign\" title=\"U+009B\">U+009B</span>\
             <span class=\"sign\" title=\"U+007F\">␡</span></bdi>"
        );
    }

    #[test]
    fn a_long_text_is_folded_and_one_without_end_is_cut() {
        assert_eq!(folded("short").into_string(), "<bdi>short</bdi>");
        assert!(folded("two\nlines").into_string().starts_with("<details><summary>"));
        let long = folded(&"x".repeat(CHARS_MAX + 1)).into_string();
        assert!(long.contains("(20,001 characters)") && long.contains("pgsaga show --json"));
        assert_eq!(long.matches('x').count(), SUMMARY_CHARS + CHARS_MAX);
        assert_eq!(
            folded_first(&"x".repeat(CHARS_MAX), CHARS_MAX + 1).into_string(),
            long,
            "cut where it was read"
        );
    }
}
