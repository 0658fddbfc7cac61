//! All that the database knows about a saga, as one JSON object. The history is read in pages, so
//! that neither a long history nor a slow reader uses memory or holds a snapshot.

use sqlx::postgres::PgPool;

use crate::error::Error;
use crate::operate::read::history;
use crate::operate::read::saga::Saga;
use crate::output::{out, out_json};

/// Number of events in a page.
const PAGE: i64 = 1000;

pub(crate) async fn print(pool: &PgPool, saga: &Saga) -> Result<(), Error> {
    let whole = serde_json::to_string_pretty(saga).map_err(unreadable)?;
    // The history becomes the last key of the object.
    out_json(format_args!("{},\n  \"history\": [", whole.trim_end_matches(['\n', '}'])))?;
    let mut from = Some(i64::MIN);
    let mut ready: Option<String> = None;
    while let Some(first) = from {
        let page = history::from(pool, saga, first, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for event in page {
            from = event.seq.checked_add(1);
            if let Some(before) = ready.replace(serde_json::to_string(&event).map_err(unreadable)?) {
                out_json(format_args!("    {before},"))?;
            }
        }
    }
    if let Some(event) = ready {
        out_json(format_args!("    {event}"))?;
    }
    out("  ]\n}")
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::Found(format!("the saga's row cannot be read: {error}"))
}
