//! The page between a button and a decision: what exactly will happen, and why it is decided.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use pgsaga_sql::{fail, query};
use sqlx::Executor as _;
use sqlx::postgres::PgPool;

use super::access::session::Session;
use super::action::{Action, Comment, allowed, consequences};
use super::failure::{Failure, is_overtaken};
use super::layout::{Place, Visitor, show, show_as};
use super::pages::{login, queues};
use super::params::{Params, link, unknown};
use super::{App, text};
use crate::error::Error;
use crate::operate::decide::refusal;
use crate::operate::show::read;

/// Tries to decide about a saga that others change at the same time.
const TRIES_MAX: u32 = 3;

/// What somebody wants to decide.
#[derive(Debug, Clone)]
enum Asked {
    Saga { gid: String, action: Action },
    Queue { name: String, pause: bool },
}

/// What follows from it, as things stand.
struct Plan {
    lines: Vec<String>,
}

impl Plan {
    /// Another one once something else would follow.
    fn stamp(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.lines.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

impl Asked {
    fn read(params: &Params) -> Result<Asked, Failure> {
        let word = params.get("action").unwrap_or_default();
        if matches!(word, "pause" | "resume") {
            let name = params
                .get("queue")
                .ok_or_else(|| Failure::bad("queue: found nothing; allowed: the name of a queue"))?;
            return Ok(Asked::Queue { name: name.to_owned(), pause: word == "pause" });
        }
        let action = Action::read(word, params.get("step")).map_err(Failure::bad)?;
        Ok(Asked::Saga { gid: params.gid()?, action })
    }

    fn title(&self) -> String {
        match self {
            Asked::Saga { action, .. } => action.title(),
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
            Asked::Saga { gid, action } => {
                let wanted = gid.clone();
                let read = move |pool: PgPool| async move { read::read(&pool, &wanted, false, None).await };
                let saga = app.store.read(read).await?.ok_or_else(|| unknown(gid))?;
                let allowed = allowed(&saga);
                if !allowed.contains(action) {
                    return Err(Failure::conflict(format!(
                        "The saga {gid} is {}: that cannot be decided about it now. Allowed: {}.",
                        saga.head.status,
                        match allowed.as_slice() {
                            [] => "nothing any more".to_owned(),
                            some => some.iter().take(20).map(Action::title).collect::<Vec<_>>().join(", "),
                        }
                    )));
                }
                consequences(&saga, action)
            }
            Asked::Queue { name, pause } => {
                queues::check(app, name).await?;
                queues::consequences(name, *pause)
            }
        };
        Ok(Plan { lines })
    }

    fn form(&self, session: &Session, plan: &Plan, comment: &str, failure: Option<&Failure>) -> Markup {
        let wanted = match self {
            Asked::Saga { action, .. } => Some(action.comment()),
            Asked::Queue { .. } => None,
        };
        html! {
            h1 { (self.title()) }
            @if let Some(failure) = failure { p.alarm role="alert" { (text::text(&failure.why)) } }
            p {
                @match self {
                    Asked::Saga { gid, .. } => { "Saga " (super::layout::saga_link(gid)) }
                    Asked::Queue { name, .. } => { "Queue " b { (text::text(name)) } }
                }
            }
            h2 id="what" { "What will happen" }
            ul.consequences aria-labelledby="what" { @for line in &plan.lines { li { (text::text(line)) } } }
            form.fields method="post" action="/decide" {
                @match self {
                    Asked::Saga { gid, action } => {
                        input type="hidden" name="gid" value=(gid);
                        input type="hidden" name="action" value=(action.word());
                        @if let Action::Skip(step) = action { input type="hidden" name="step" value=(step); }
                    }
                    Asked::Queue { name, pause } => {
                        input type="hidden" name="queue" value=(name);
                        input type="hidden" name="action" value=(if *pause { "pause" } else { "resume" });
                    }
                }
                input type="hidden" name="form_token" value=(session.form_token);
                input type="hidden" name="stamp" value=(plan.stamp());
                @if let Some(wanted) = wanted {
                    label for="comment" { "Why" @if wanted == Comment::Welcome { " (may be left out)" } }
                    input id="comment" name="comment" maxlength="1024" autocomplete="off" required[wanted == Comment::Needed] value=(comment);
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

/// GET /decide
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
    show(&app, &visitor, Place::Elsewhere, "Decide", body)
}

/// POST /decide
pub(crate) async fn take(State(app): State<App>, visitor: Visitor, body: Bytes) -> Response {
    let params = Params::read(&String::from_utf8_lossy(&body));
    let asked =
        login::of_this_session(&visitor, &params).and_then(|session| Ok((session, Asked::read(&params)?)));
    let (session, asked) = match asked {
        Ok(asked) => asked,
        Err(failure) => return show(&app, &visitor, Place::Elsewhere, "Decide", Err(failure)),
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
        return show(&app, &visitor, Place::Elsewhere, "Decide", Err(failure));
    }
    match asked.plan(&app).await {
        Ok(plan) => {
            let body = asked.form(session, &plan, &comment, Some(&failure));
            show_as(&app, &visitor, Place::Elsewhere, "Decide", failure.status, body)
        }
        Err(failure) => show(&app, &visitor, Place::Elsewhere, "Decide", Err(failure)),
    }
}

async fn decide(
    app: &App,
    session: &Session,
    asked: &Asked,
    comment: &str,
    stamp: String,
) -> Result<String, Failure> {
    let (reader, by, asked) = (app.clone(), session.name.clone(), asked.clone());
    let comment = (!comment.is_empty()).then(|| comment.to_owned());
    let deciding = move |pool: PgPool| async move {
        let as_shown = AsShown { app: reader, asked: asked.clone(), stamp };
        let said = match &asked {
            Asked::Saga { gid, action } => {
                about_saga(&pool, &by, gid, action, comment.as_deref(), &as_shown).await?
            }
            Asked::Queue { name, pause } => about_queue(&pool, &by, name, *pause, &as_shown).await?,
        };
        if let Ok(said) = &said {
            tracing::info!(by = by.as_str(), decision = said.as_str(), "decided");
        }
        Ok(said)
    };
    app.store.decide(deciding).await?
}

/// What was shown to whoever decides.
struct AsShown {
    app: App,
    asked: Asked,
    stamp: String,
}

impl AsShown {
    /// Whether just that would still happen.
    async fn check(&self) -> Result<(), Failure> {
        if self.asked.plan(&self.app).await?.stamp() == self.stamp {
            return Ok(());
        }
        Err(Failure::conflict("Meanwhile something changed: read again what will happen now."))
    }
}

/// The saga may change between the comparison with what was shown and the locks that the decision takes, and it may wait for
/// them behind a settle. So the transaction has its snapshot before the comparison: a lock on what has changed since fails (40001).
async fn about_saga(
    pool: &PgPool,
    by: &str,
    gid: &str,
    action: &Action,
    comment: Option<&str>,
    as_shown: &AsShown,
) -> Result<Result<String, Failure>, Error> {
    let decision = action.decision(comment)?;
    let mut tries = 1;
    loop {
        let mut transaction = pool.begin().await?;
        transaction.execute("set transaction isolation level repeatable read").await?;
        // The first statement with a result takes the snapshot.
        sqlx::query(query::UI_DECIDED_BY).bind(by).execute(&mut *transaction).await?;
        if let Err(failure) = as_shown.check().await {
            transaction.rollback().await?;
            return Ok(Err(failure));
        }
        let taken = decision.take(&mut *transaction, gid).await.map_err(|error| match error {
            // Nothing is decided before the commit.
            Error::Unanswered { error, .. } => Error::Database(error),
            error => error,
        });
        match taken {
            Ok(taken) => {
                let unanswered = |error| Error::Unanswered { error, advice: decision.repeating() };
                transaction.commit().await.map_err(unanswered)?;
                return Ok(Ok(format!("{gid}: {}: {taken}", decision.about())));
            }
            // What changed may be of no consequence, as where a worker claims what is due.
            Err(error) if is_overtaken(&error) && tries < TRIES_MAX => {
                transaction.rollback().await?;
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn about_queue(
    pool: &PgPool,
    by: &str,
    queue: &str,
    pause: bool,
    as_shown: &AsShown,
) -> Result<Result<String, Failure>, Error> {
    if let Err(failure) = as_shown.check().await {
        return Ok(Err(failure));
    }
    let sql = if pause { query::PAUSE } else { query::RESUME };
    let mut transaction = pool.begin().await?;
    sqlx::query(query::UI_DECIDED_BY).bind(by).execute(&mut *transaction).await?;
    fail::before(sql);
    sqlx::query(sql).bind(queue).execute(&mut *transaction).await.map_err(refusal)?;
    fail::after(sql);
    let unanswered = |error| Error::Unanswered { error, advice: "repeating it is safe" };
    transaction.commit().await.map_err(unanswered)?;
    Ok(Ok(if pause { format!("Queue {queue} is paused.") } else { format!("Queue {queue} goes on.") }))
}
