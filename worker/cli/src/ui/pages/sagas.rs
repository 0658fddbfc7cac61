//! The list of sagas: filters, and pages from the newest backwards.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};
use pgsaga_plan::SagaStatus;
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::PgPool;

use crate::error::Error;
use crate::operate::filter::{self, Label, label};
use crate::operate::read::list::Summary;
use crate::ui::App;
use crate::ui::access::visitor::Visitor;
use crate::ui::failure::Failure;
use crate::ui::layout::{NavItem, badge, saga_link, show, table, time};
use crate::ui::params::{Params, is_of_gid, link};
use crate::ui::text::{folded, text};
use crate::words::count;

/// Sagas a page.
const PAGE: usize = 50;
/// Sagas that are looked at for a page, whatever passes the filters: some 20 MB of a table of usual
/// rows.
const LOOKED_AT_MAX: i64 = 20_000;
const TEXT_BYTES_MAX: usize = 1024;
/// Each is looked for in every saga that is looked at.
const LABELS_MAX: usize = 8;

/// What a person wants of a saga's status.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    /// Not over.
    Open,
    Status(SagaStatus),
}

impl Wanted {
    fn all() -> impl Iterator<Item = Wanted> {
        std::iter::once(Wanted::Open).chain(SagaStatus::ALL.map(Wanted::Status))
    }

    fn as_str(self) -> &'static str {
        match self {
            Wanted::Open => "open",
            Wanted::Status(status) => status.as_str(),
        }
    }

    fn parse(word: &str) -> Result<Wanted, Failure> {
        Wanted::all().find(|wanted| wanted.as_str() == word).ok_or_else(|| {
            let allowed = Wanted::all().map(Wanted::as_str).collect::<Vec<_>>().join(", ");
            Failure::bad(format!("status: found {word:?}; allowed: {allowed}, or nothing"))
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Filter {
    status: Option<Wanted>,
    queue: Option<String>,
    labels: Vec<Label>,
    text: Option<String>,
    /// Only sagas that were inserted before the one of this id.
    before: Option<i64>,
}

impl Filter {
    fn read(params: &Params) -> Result<Filter, Failure> {
        params.only(&["status", "queue", "label", "text", "before"])?;
        let status = params.get("status").map(Wanted::parse).transpose()?;
        let queue = params.get("queue").map(str::to_owned);
        let found = params.all("label").count();
        if found > LABELS_MAX {
            return Err(Failure::bad(format!("label: found {found} of them; allowed: at most {LABELS_MAX}")));
        }
        let labels = params
            .all("label")
            .map(|text| label(text).map_err(|error| format!("label: found {text:?}; {error}")));
        let labels: Vec<Label> = labels.collect::<Result<_, _>>().map_err(Failure::bad)?;
        for text in queue
            .iter()
            .chain(labels.iter().flat_map(|label| std::iter::once(&label.key).chain(&label.value)))
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
        Ok(Filter { status, queue, labels, text, before: params.number("before")? })
    }

    /// Sagas that are not over are found by what is queued or stuck, however long ago they were
    /// inserted.
    fn is_of_open(&self) -> bool {
        match self.status {
            Some(Wanted::Status(SagaStatus::Succeeded | SagaStatus::Failed)) | None => false,
            Some(Wanted::Open | Wanted::Status(_)) => true,
        }
    }

    /// Whether those have a task; what is stuck, and of which nothing else runs, has none.
    fn is_of_tasks(&self) -> bool {
        self.status != Some(Wanted::Status(SagaStatus::Stuck))
    }

    /// As a link; `before` is a page's own.
    fn link(&self, before: Option<i64>) -> String {
        let before = before.map(|id| id.to_string());
        let labels: Vec<String> = self.labels.iter().map(written).collect();
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        pairs.extend(self.status.map(|status| ("status", status.as_str())));
        pairs.extend(self.queue.as_deref().map(|queue| ("queue", queue)));
        pairs.extend(labels.iter().map(|label| ("label", label.as_str())));
        pairs.extend(self.text.as_deref().map(|text| ("text", text)));
        pairs.extend(before.as_deref().map(|id| ("before", id)));
        link("/sagas", &pairs)
    }

    fn is_any(&self) -> bool {
        *self == Filter { before: self.before, ..Filter::default() }
    }
}

fn written(label: &Label) -> String {
    match &label.value {
        Some(value) => format!("{}={value}", label.key),
        None => label.key.clone(),
    }
}

struct Found {
    rows: Vec<Summary>,
    /// The page is full, and there is another row.
    is_full: bool,
    /// Otherwise: how many sagas were looked at, whether these are all, and the last of them.
    looked_at: i64,
    is_end: bool,
    last_id: Option<i64>,
    /// A saga has just the text as its gid, however old it is.
    exact: Option<String>,
}

/// GET /sagas
pub(crate) async fn page(State(app): State<App>, visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let body = async {
        let filter = Filter::read(&Params::read(query.as_deref().unwrap_or_default()))?;
        let wanted = filter.clone();
        let found = app.store.read(move |pool| read(pool, wanted)).await?;
        Ok(markup(&filter, &found))
    };
    let body = body.await;
    show(&app, &visitor, NavItem::Sagas, "Sagas", body)
}

async fn read(pool: PgPool, filter: Filter) -> Result<Found, Error> {
    let statuses = match filter.status {
        None | Some(Wanted::Open) => None,
        Some(Wanted::Status(status)) => Some(vec![status.as_str()]),
    };
    let (label_keys, label_values) = filter::labels(&filter.labels);
    let sql = if filter.is_of_open() { query::UI_SAGAS_OPEN } else { query::UI_SAGAS };
    let list = sqlx::query_as(sql)
        // Planned for just these filters.
        .persistent(false)
        .bind(filter.before)
        .bind(statuses)
        .bind(&filter.queue)
        .bind(label_keys)
        .bind(label_values)
        .bind(&filter.text)
        .bind(LOOKED_AT_MAX)
        .bind(PAGE as i64 + 1);
    let list = if filter.is_of_open() { list.bind(filter.is_of_tasks()) } else { list };
    let mut rows: Vec<Summary> = list.fetch_all(&pool).await?;
    let is_full = rows.len() > PAGE;
    rows.truncate(PAGE);
    let (mut looked_at, mut is_end, mut last_id) = (0, false, rows.last().map(|row| row.id));
    if !is_full {
        let looked = sqlx::query(query::UI_SAGAS_LOOKED)
            .persistent(false)
            .bind(filter.before)
            .bind(LOOKED_AT_MAX)
            .bind(filter.is_of_open())
            .bind(filter.is_of_tasks())
            .fetch_one(&pool)
            .await?;
        is_end = looked.try_get::<i64, _>("entries")? < LOOKED_AT_MAX;
        (looked_at, last_id) = (looked.try_get("looked_at")?, looked.try_get("last_id")?);
    }
    let exact = match &filter.text {
        Some(gid) if !rows.iter().any(|row| row.gid == *gid) => {
            let found = sqlx::query(query::SHOW_SAGA).bind(gid).bind(false).fetch_optional(&pool).await?;
            found.map(|row| row.try_get("gid")).transpose()?
        }
        _ => None,
    };
    Ok(Found { rows, is_full, looked_at, is_end, last_id, exact })
}

fn markup(filter: &Filter, found: &Found) -> Markup {
    html! {
        h1 { "Sagas" }
        (form(filter))
        @if let Some(gid) = &found.exact {
            p.told { "A saga has just this gid: " (saga_link(gid)) }
        }
        @if found.rows.is_empty() {
            p { @if filter.is_any() { "There is no saga." } @else { "No saga among these passes the filters." } }
        } @else {
            (list(&found.rows))
        }
        (further(filter, found))
    }
}

fn form(filter: &Filter) -> Markup {
    let first = filter.labels.first().map(written).unwrap_or_default();
    html! {
        form.filters method="get" action="/sagas" role="search" aria-label="Filter sagas" {
            div {
                label for="status" { "Status" }
                select id="status" name="status" {
                    option value="" { "any" }
                    @for status in Wanted::all() {
                        option value=(status.as_str()) selected[filter.status == Some(status)] {
                            @if status == Wanted::Open { "open (not over)" } @else { (status.as_str()) }
                        }
                    }
                }
            }
            div {
                label for="queue" { "Queue" }
                input id="queue" name="queue" autocomplete="off" value=(filter.queue.as_deref().unwrap_or_default());
            }
            div {
                label for="label" { "Label" }
                input id="label" name="label" autocomplete="off" placeholder="key=value or key" value=(first);
            }
            // The form has one field; a link may have more.
            @for label in filter.labels.iter().skip(1) { input type="hidden" name="label" value=(written(label)); }
            div {
                label for="text" { "Text in the gid" }
                input id="text" name="text" autocomplete="off" maxlength="128" value=(filter.text.as_deref().unwrap_or_default());
            }
            div.choice {
                button { "Filter" }
                @if !filter.is_any() { a.button href="/sagas" { "Clear" } }
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

/// The way to older sagas. A page that few sagas pass says how far it looked.
fn further(filter: &Filter, found: &Found) -> Markup {
    let may_be_more = found.is_full || !found.is_end;
    html! {
        @if !found.is_full && !found.is_end {
            p.muted { "Looked at " (count(found.looked_at)) " sagas for this page; there are older ones." }
        }
        nav aria-label="Further pages" {
            @if filter.before.is_some() { a.button href=(filter.link(None)) { "Newest" } " " }
            @if let (true, Some(last)) = (may_be_more, found.last_id) {
                a.button href=(filter.link(Some(last))) { @if found.is_full { "Older" } @else { "Look further" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Filter, String> {
        Filter::read(&Params::read(query)).map_err(|failure| failure.why)
    }

    #[test]
    fn a_filter_is_read_as_its_link_writes_it() {
        assert_eq!(
            read("status=&queue=&label=&text=").unwrap(),
            Filter::default(),
            "a form that was left empty"
        );
        let filter = read("status=stuck&queue=a+b&label=tenant%3D7&label=vip&text=order-&before=17").unwrap();
        assert_eq!(filter.labels.len(), 2);
        let again = filter.link(Some(17));
        assert_eq!(read(again.split_once('?').unwrap().1).unwrap(), filter);
        assert!(!filter.is_any() && read("before=5").unwrap().is_any());
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
