//! The list of sagas: filters, and pages from the newest backwards.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};

use crate::operate::filter::{Label, label};
use crate::operate::read::list::Summary;
use crate::operate::read::search::{Found, Search, Wanted};
use crate::ui::App;
use crate::ui::access::visitor::Visitor;
use crate::ui::failure::Failure;
use crate::ui::layout::{NavItem, badge, saga_link, show, table, time};
use crate::ui::params::{Params, is_of_gid, link};
use crate::ui::text::{folded, text};
use crate::words::count;

const ROWS_PER_PAGE: usize = 50;
const TEXT_BYTES_MAX: usize = 1024;
/// Upper bound on the labels of a filter. Each is compared with every saga that is examined.
const LABELS_MAX: usize = 8;

fn wanted(word: &str) -> Result<Wanted, Failure> {
    Wanted::all().find(|wanted| wanted.as_str() == word).ok_or_else(|| {
        let allowed = Wanted::all().map(Wanted::as_str).collect::<Vec<_>>().join(", ");
        Failure::bad(format!("status: found {word:?}; allowed: {allowed}, or nothing"))
    })
}

fn search(params: &Params) -> Result<Search, Failure> {
    params.only(&["status", "queue", "label", "text", "before"])?;
    let status = params.get("status").map(wanted).transpose()?;
    let queue = params.get("queue").map(str::to_owned);
    let found = params.all("label").count();
    if found > LABELS_MAX {
        return Err(Failure::bad(format!("label: found {found} of them; allowed: at most {LABELS_MAX}")));
    }
    let labels = params
        .all("label")
        .map(|text| label(text).map_err(|error| format!("label: found {text:?}; {error}")));
    let labels: Vec<Label> = labels.collect::<Result<_, _>>().map_err(Failure::bad)?;
    for text in
        queue.iter().chain(labels.iter().flat_map(|label| std::iter::once(&label.key).chain(&label.value)))
    {
        if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
            return Err(Failure::bad(
                "queue and label: found more than 1,024 bytes, or a NUL; allowed: other text",
            ));
        }
    }
    let text = params.get("text").map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(text) = text.as_deref().filter(|text| !is_of_gid(text)) {
        return Err(Failure::bad(format!(
            "text: found {text:?}; allowed: what a gid may have in it, letters, digits and . _ : - (at most 128)"
        )));
    }
    Ok(Search { status, queue, labels, text, before: params.number("before")? })
}

/// The link to a search; `before` is the position of a page.
fn link_of(search: &Search, before: Option<i64>) -> String {
    let before = before.map(|id| id.to_string());
    let labels: Vec<String> = search.labels.iter().map(written).collect();
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    pairs.extend(search.status.map(|status| ("status", status.as_str())));
    pairs.extend(search.queue.as_deref().map(|queue| ("queue", queue)));
    pairs.extend(labels.iter().map(|label| ("label", label.as_str())));
    pairs.extend(search.text.as_deref().map(|text| ("text", text)));
    pairs.extend(before.as_deref().map(|id| ("before", id)));
    link("/sagas", &pairs)
}

fn is_any(search: &Search) -> bool {
    *search == Search { before: search.before, ..Search::default() }
}

fn written(label: &Label) -> String {
    match &label.value {
        Some(value) => format!("{}={value}", label.key),
        None => label.key.clone(),
    }
}

pub(crate) async fn page(State(app): State<App>, visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let body = async {
        let search = search(&Params::read(query.as_deref().unwrap_or_default()))?;
        let wanted = search.clone();
        let found = app.store.read(move |pool| wanted.run(pool, ROWS_PER_PAGE)).await?;
        Ok(markup(&search, &found))
    };
    let body = body.await;
    show(&app, &visitor, NavItem::Sagas, "Sagas", body)
}

fn markup(search: &Search, found: &Found) -> Markup {
    html! {
        h1 { "Sagas" }
        (form(search))
        @if let Some(gid) = &found.exact {
            p.told { "A saga has just this gid: " (saga_link(gid)) }
        }
        @if found.rows.is_empty() {
            p { @if is_any(search) { "There is no saga." } @else { "No saga among these passes the filters." } }
        } @else {
            (list(&found.rows))
        }
        (further(search, found))
    }
}

fn form(search: &Search) -> Markup {
    let first = search.labels.first().map(written).unwrap_or_default();
    html! {
        form.filters method="get" action="/sagas" role="search" aria-label="Filter sagas" {
            div {
                label for="status" { "Status" }
                select id="status" name="status" {
                    option value="" { "any" }
                    @for status in Wanted::all() {
                        option value=(status.as_str()) selected[search.status == Some(status)] {
                            @if status == Wanted::Open { "open (not over)" } @else { (status.as_str()) }
                        }
                    }
                }
            }
            div {
                label for="queue" { "Queue" }
                input id="queue" name="queue" autocomplete="off" value=(search.queue.as_deref().unwrap_or_default());
            }
            div {
                label for="label" { "Label" }
                input id="label" name="label" autocomplete="off" placeholder="key=value or key" value=(first);
            }
            // The form has a field for one label, while a link may have more.
            @for label in search.labels.iter().skip(1) { input type="hidden" name="label" value=(written(label)); }
            div {
                label for="text" { "Text in the gid" }
                input id="text" name="text" autocomplete="off" maxlength="128" value=(search.text.as_deref().unwrap_or_default());
            }
            div.choice {
                button { "Filter" }
                @if !is_any(search) { a.button href="/sagas" { "Clear" } }
            }
        }
    }
}

fn list(rows: &[Summary]) -> Markup {
    let row = |row: &Summary| {
        vec![
            saga_link(&row.gid),
            badge(row.status.as_str()),
            html! { (text(&row.queue)) },
            html! { (time(row.created_at)) },
            html! { @if let Some(at) = row.finished_at { (time(at)) } @else { span.muted { "not yet" } } },
            html! { @if let Some(labels) = &row.labels { (folded(labels)) } },
            html! { @if let Some(reason) = &row.reason { (folded(reason)) } },
        ]
    };
    let rows: Vec<Vec<Markup>> = rows.iter().map(row).collect();
    table(
        "The newest first",
        &["Gid", "Status", "Queue", "Created (UTC)", "Finished (UTC)", "Labels", "Reason"],
        &rows,
    )
}

/// The link to older sagas. If few sagas passed the filters, it says how far the page searched.
fn further(search: &Search, found: &Found) -> Markup {
    let may_be_more = found.is_full || !found.is_end;
    html! {
        @if !found.is_full && !found.is_end {
            p.muted { "Looked at " (count(found.looked_at)) " sagas for this page; there are older ones." }
        }
        nav aria-label="Further pages" {
            @if search.before.is_some() { a.button href=(link_of(search, None)) { "Newest" } " " }
            @if let (true, Some(last)) = (may_be_more, found.last_id) {
                a.button href=(link_of(search, Some(last))) { @if found.is_full { "Older" } @else { "Look further" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Search, String> {
        search(&Params::read(query)).map_err(|failure| failure.why)
    }

    #[test]
    fn a_filter_is_read_as_its_link_writes_it() {
        assert_eq!(
            read("status=&queue=&label=&text=").unwrap(),
            Search::default(),
            "a form that was left empty"
        );
        let filter = read("status=stuck&queue=a+b&label=tenant%3D7&label=vip&text=order-&before=17").unwrap();
        assert_eq!(filter.labels.len(), 2);
        let again = link_of(&filter, Some(17));
        assert_eq!(read(again.split_once('?').unwrap().1).unwrap(), filter);
        assert!(!is_any(&filter) && is_any(&read("before=5").unwrap()));
    }

    #[test]
    fn a_bad_filter_says_what_is_allowed() {
        for (query, says) in [
            (
                "status=done",
                "status: found \"done\"; allowed: open, submitted, aborting, stuck, succeeded, failed",
            ),
            (&"label=a&".repeat(9), "label: found 9 of them; allowed: at most 8"),
            ("label=%3Dx", "label: found \"=x\"; allowed: KEY=VALUE"),
            ("text=%27+or+1", "allowed: what a gid may have in it"),
            ("before=x", "before: found \"x\"; allowed: a whole number"),
            ("queue=a%00", "a NUL; allowed: other text"),
            ("limit=5", "\"limit\" means nothing here; allowed: status, queue, label, text, before"),
        ] {
            let said = read(query).unwrap_err();
            assert!(said.contains(says), "{query}: {said}");
        }
    }
}
