//! The page between a button and a decision: what exactly will happen, and why it is decided.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use pgsaga_sql::{fail, query};
use sqlx::Executor as _;
use sqlx::postgres::{PgConnection, PgPool};

use super::App;
use super::access::session::Session;
use super::access::visitor::Visitor;
use super::failure::Failure;
use super::layout::{NavItem, saga_link, show, show_as};
use super::params::{Params, link, unknown};
use super::text::text;
use crate::error::Error;
use crate::operate::decide::consequences::{Offer, allowed, consequences};
use crate::operate::decide::{Decision, refusal};
use crate::operate::read::queues;
use crate::operate::read::saga::Saga;

/// Tries to decide about a saga that others change at the same time.
const TRIES_MAX: u32 = 3;

#[derive(Debug, Clone)]
enum Asked {
    Saga { gid: String, offer: Offer },
    Queue { name: String, pause: bool },
}

/// What follows from the decision, as things stand.
struct Plan {
    lines: Vec<String>,
}

impl Plan {
    /// Differs once something else would follow.
    fn stamp(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.lines.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

impl Asked {
    fn read(params: &Params) -> Result<Asked, Failure> {
        let missing = |what: &str| Failure::bad(what.to_owned());
        let word = params.get("action").unwrap_or_default();
        if matches!(word, "pause" | "resume") {
            let name = params
                .get("queue")
                .ok_or_else(|| missing("queue: found nothing; allowed: the name of a queue"))?;
            return Ok(Asked::Queue { name: name.to_owned(), pause: word == "pause" });
        }
        let decision = Decision::parse(word).ok_or_else(|| {
            let allowed = Decision::ALL.map(|decision| decision.facts().word).join(", ");
            Failure::bad(format!("action: found {word:?}; allowed: {allowed}, pause, resume"))
        })?;
        let step = params.get("step").filter(|_| decision.facts().is_of_step).map(str::to_owned);
        if decision.facts().is_of_step && step.is_none() {
            return Err(missing("step: found nothing; allowed: the name of a step"));
        }
        Ok(Asked::Saga { gid: params.gid()?, offer: Offer { decision, step } })
    }

    fn title(&self) -> String {
        match self {
            Asked::Saga { offer, .. } => offer.title(),
            Asked::Queue { pause: true, .. } => "Pause the queue".to_owned(),
            Asked::Queue { pause: false, .. } => "Resume the queue".to_owned(),
        }
    }

    fn back(&self) -> String {
        match self {
            Asked::Saga { gid, .. } => link("/saga", &[("gid", gid)]),
            Asked::Queue { .. } => "/queues".to_owned(),
        }
    }

    async fn plan(&self, app: &App) -> Result<Plan, Failure> {
        let lines = match self {
            Asked::Saga { gid, offer } => {
                let wanted = gid.clone();
                let read = move |pool: PgPool| async move { Saga::read(&pool, &wanted, false, None).await };
                let saga = app.store.read(read).await?.ok_or_else(|| unknown(gid))?;
                let allowed = allowed(&saga);
                if !allowed.contains(offer) {
                    return Err(Failure::conflict(format!(
                        "The saga {gid} is {}: that cannot be decided about it now. Allowed: {}.",
                        saga.head.status.as_str(),
                        match allowed.as_slice() {
                            [] => "nothing any more".to_owned(),
                            some => some.iter().take(20).map(Offer::title).collect::<Vec<_>>().join(", "),
                        }
                    )));
                }
                consequences(&saga, offer)
            }
            Asked::Queue { name, pause } => {
                let wanted = Some(name.clone());
                if app.store.read(move |pool| queues::uncounted(pool, wanted)).await?.is_empty() {
                    return Err(Failure::absent(format!("No saga was ever in the queue {name:?}.")));
                }
                queue_consequences(name, *pause)
            }
        };
        Ok(Plan { lines })
    }

    fn form(&self, session: &Session, plan: &Plan, comment: &str, failure: Option<&Failure>) -> Markup {
        let needs_comment = match self {
            Asked::Saga { offer, .. } => Some(offer.decision.facts().needs_comment),
            Asked::Queue { .. } => None,
        };
        html! {
            h1 { (self.title()) }
            @if let Some(failure) = failure { p.alarm role="alert" { (text(&failure.why)) } }
            p {
                @match self {
                    Asked::Saga { gid, .. } => { "Saga " (saga_link(gid)) }
                    Asked::Queue { name, .. } => { "Queue " b { (text(name)) } }
                }
            }
            h2 id="what" { "What will happen" }
            ul.consequences aria-labelledby="what" { @for line in &plan.lines { li { (text(line)) } } }
            form.fields method="post" action="/decide" {
                @match self {
                    Asked::Saga { gid, offer } => {
                        input type="hidden" name="gid" value=(gid);
                        input type="hidden" name="action" value=(offer.decision.facts().word);
                        @if let Some(step) = &offer.step { input type="hidden" name="step" value=(step); }
                    }
                    Asked::Queue { name, pause } => {
                        input type="hidden" name="queue" value=(name);
                        input type="hidden" name="action" value=(if *pause { "pause" } else { "resume" });
                    }
                }
                input type="hidden" name="form_token" value=(session.form_token);
                input type="hidden" name="stamp" value=(plan.stamp());
                @if let Some(needed) = needs_comment {
                    label for="comment" { "Why" @if !needed { " (may be left out)" } }
                    input id="comment" name="comment" maxlength="1024" autocomplete="off" required[needed] value=(comment);
                    p.muted { "It is recorded in the saga's history, with your name." }
                }
                div.choice {
                    button { (self.title()) }
                    a.button href=(self.back()) { "Cancel" }
                }
            }
        }
    }
}

pub(crate) async fn ask(State(app): State<App>, visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let params = Params::read(query.as_deref().unwrap_or_default());
    if visitor.may_log_in && visitor.session.is_none() {
        return Redirect::to(&link("/login", &[("to", &visitor.asked_for)])).into_response();
    }
    let body = async {
        let Some(session) = &visitor.session else {
            return Err(Failure::forbidden("This page is read-only: it was started without a token."));
        };
        let asked = Asked::read(&params)?;
        let plan = asked.plan(&app).await?;
        Ok(asked.form(session, &plan, "", None))
    };
    let body = body.await;
    show(&app, &visitor, NavItem::Elsewhere, "Decide", body)
}

pub(crate) async fn take(State(app): State<App>, visitor: Visitor, body: Bytes) -> Response {
    let params = Params::read(&String::from_utf8_lossy(&body));
    let asked = visitor.session_of(&params).and_then(|session| Ok((session, Asked::read(&params)?)));
    let (session, asked) = match asked {
        Ok(asked) => asked,
        Err(failure) => return show(&app, &visitor, NavItem::Elsewhere, "Decide", Err(failure)),
    };
    let comment = params.get("comment").unwrap_or_default().trim().to_owned();
    let stamp = params.get("stamp").unwrap_or_default().to_owned();
    let taken = decide(&app, session, &asked, &comment, stamp).await;
    let failure = match taken {
        Ok(said) => {
            app.sessions.tell(session, said);
            return Redirect::to(&asked.back()).into_response();
        }
        Err(failure) => failure,
    };
    if !matches!(failure.status, StatusCode::BAD_REQUEST | StatusCode::CONFLICT) {
        return show(&app, &visitor, NavItem::Elsewhere, "Decide", Err(failure));
    }
    match asked.plan(&app).await {
        Ok(plan) => {
            let body = asked.form(session, &plan, &comment, Some(&failure));
            show_as(&app, &visitor, NavItem::Elsewhere, "Decide", failure.status, body)
        }
        Err(failure) => show(&app, &visitor, NavItem::Elsewhere, "Decide", Err(failure)),
    }
}

async fn decide(
    app: &App,
    session: &Session,
    asked: &Asked,
    comment: &str,
    stamp: String,
) -> Result<String, Failure> {
    let (app_of_task, by, asked) = (app.clone(), session.name.clone(), asked.clone());
    let comment = (!comment.is_empty()).then(|| comment.to_owned());
    let deciding = move |pool: PgPool| async move {
        let said = asked.decide(&app_of_task, &pool, &by, comment.as_deref(), &stamp).await?;
        if let Ok(said) = &said {
            tracing::info!(by = by.as_str(), decision = said.as_str(), "decided");
        }
        Ok(said)
    };
    app.store.decide(deciding).await?
}

impl Asked {
    /// Decides, if what was shown (`stamp`) is what would still happen.
    ///
    /// The saga may change between the comparison and the locks that the decision takes, and the
    /// decision may wait for them behind a settle. So the transaction has its snapshot before the
    /// comparison: a lock on what has changed since fails (40001).
    async fn decide(
        &self,
        app: &App,
        pool: &PgPool,
        by: &str,
        comment: Option<&str>,
        stamp: &str,
    ) -> Result<Result<String, Failure>, Error> {
        let mut tries = 1;
        loop {
            let mut transaction = pool.begin().await?;
            transaction.execute("set transaction isolation level repeatable read").await?;
            // The first statement with a result takes the snapshot.
            sqlx::query(query::UI_DECIDED_BY).bind(by).execute(&mut *transaction).await?;
            let as_shown = self.plan(app).await.and_then(|plan| match plan.stamp() == stamp {
                true => Ok(()),
                false => {
                    Err(Failure::conflict("Meanwhile something changed: read again what will happen now."))
                }
            });
            if let Err(failure) = as_shown {
                transaction.rollback().await?;
                return Ok(Err(failure));
            }
            match self.take(&mut transaction, comment).await {
                Ok(said) => {
                    let unanswered = |error| Error::Unanswered { error, advice: self.repeating() };
                    transaction.commit().await.map_err(unanswered)?;
                    return Ok(Ok(said));
                }
                // What changed may be of no consequence, as where a worker claims what is due.
                Err(error) if error.is_overtaken() && tries < TRIES_MAX => {
                    transaction.rollback().await?;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn take(&self, connection: &mut PgConnection, comment: Option<&str>) -> Result<String, Error> {
        match self {
            Asked::Saga { gid, offer } => {
                if offer.decision.facts().needs_comment && comment.is_none() {
                    let nothing = "comment: found nothing; allowed: 1 to 1,024 bytes that say why";
                    return Err(Error::Usage(nothing.to_owned()));
                }
                let request = offer.request(comment);
                let taken = request.take(connection, gid).await.map_err(|error| match error {
                    // Nothing is decided before the commit.
                    Error::Unanswered { error, .. } => Error::Database(error),
                    error => error,
                })?;
                Ok(format!("{gid}: {}: {taken}", request.about()))
            }
            Asked::Queue { name, pause } => {
                let sql = if *pause { query::PAUSE } else { query::RESUME };
                fail::before(sql);
                sqlx::query(sql).bind(name).execute(connection).await.map_err(refusal)?;
                fail::after(sql);
                Ok(format!("Queue {name} {}.", if *pause { "is paused" } else { "goes on" }))
            }
        }
    }

    fn repeating(&self) -> &'static str {
        match self {
            Asked::Saga { offer, .. } => offer.decision.facts().repeating,
            Asked::Queue { .. } => "repeating it is safe",
        }
    }
}

fn queue_consequences(name: &str, pause: bool) -> Vec<String> {
    if pause {
        return vec![
            format!(
                "No try of the queue {name} is claimed any more, and none of its sagas goes on to its next step, until somebody resumes it."
            ),
            "Calls in flight end, and what they come to is recorded.".to_owned(),
            "Deadlines wait, too. New sagas are taken, and wait.".to_owned(),
        ];
    }
    vec![
        format!("What is due of the queue {name} is claimed and called at once."),
        "Sagas whose deadline has passed meanwhile roll back.".to_owned(),
    ]
}
