//! A participant in this process, with its handlers.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use pgsaga_plan::Op;
use pgsaga_sql::contract::NamedUrl;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{About, Call};
use super::error::HandlerError;
use crate::db::HandlerTransaction;

/// A participant whose handlers run in this process.
///
/// ```
/// use pgsaga_worker::{Call, HandlerError, Participant};
///
/// #[derive(serde::Deserialize)]
/// struct Reserve {
///     item: String,
/// }
///
/// async fn reserve(call: Call<Reserve>) -> Result<String, HandlerError> {
///     if call.payload.item == "moon" {
///         return Err(HandlerError::refuse("not for sale"));
///     }
///     Ok(format!("reserved {} under {}", call.payload.item, call.key()))
/// }
///
/// async fn release(_call: Call<Reserve>) -> Result<(), HandlerError> {
///     Ok(())
/// }
///
/// // For steps with the action `participant:stock/reserve`, and the same as their compensation.
/// let stock = Participant::new("stock").action("reserve", reserve).compensate("reserve", release);
/// ```
#[derive(Clone)]
pub struct Participant {
    pub(crate) name: String,
    pub(crate) limit: Option<usize>,
    handlers: HashMap<(Op, String), Handler>,
    /// The first fault of the building, which stops the worker's start.
    fault: Option<String>,
}

/// A participant in this process whose handlers write to the saga's own database. Each is called
/// with a [`HandlerTransaction`], in which the worker records the attempt as well. So the handler
/// takes effect exactly once, without a barrier: what it wrote and the record commit together.
///
/// ```
/// use pgsaga_worker::{Call, HandlerError, HandlerTransaction, TransactionalParticipant};
///
/// #[derive(serde::Deserialize)]
/// struct Charge {
///     account: i64,
///     cents: i64,
/// }
///
/// async fn charge(
///     call: Call<Charge>,
///     mut transaction: HandlerTransaction,
/// ) -> Result<(), HandlerError> {
///     let Charge { account, cents } = call.payload;
///     let charge = "update account set cents = cents - $2 where id = $1 and cents >= $2";
///     let charge = sqlx::query(charge).bind(account).bind(cents);
///     let charged = charge.execute(&mut *transaction).await?;
///     if charged.rows_affected() == 0 {
///         return Err(HandlerError::refuse("insufficient funds"));
///     }
///     Ok(())
/// }
///
/// let bank = TransactionalParticipant::new("bank").action("charge", charge);
/// ```
#[derive(Debug, Clone)]
pub struct TransactionalParticipant(Participant);

/// A handler that reads its payload and returns its answer as JSON.
#[derive(Clone)]
pub(super) enum Handler {
    Plain(Arc<Plain>),
    Transactional(Arc<Transactional>),
}

type Plain = dyn Fn(About, &Bytes) -> Running + Send + Sync;
type Transactional = dyn Fn(About, &Bytes, HandlerTransaction) -> Running + Send + Sync;

pub(super) type Running = Pin<Box<dyn Future<Output = Returned> + Send>>;
/// What a handler has returned: its answer as JSON, or why there is none.
pub(super) type Returned = Result<Vec<u8>, HandlerError>;

impl Participant {
    /// A participant of this name without handlers. Steps call it as `participant:NAME/PATH`.
    pub fn new(name: impl Into<String>) -> Participant {
        let name = name.into();
        let fault = (!NamedUrl::is_name(&name)).then(|| format!("a bad name; allowed: {}", NamedUrl::NAMES));
        Participant { name, limit: None, handlers: HashMap::new(), fault }
    }

    /// Bounds the calls of this participant that run at once in this process, for each database.
    pub fn limit(mut self, calls_max: usize) -> Participant {
        self.limit = Some(calls_max);
        self
    }

    /// Calls the function for actions of this path: `reserve` for `participant:stock/reserve`.
    /// State comes with the function, as what a closure or a method's `Arc<Self>` captures.
    ///
    /// A payload that is no `P` is refused, with the place of the value. The answer is kept where
    /// the saga uses it.
    pub fn action<P, A, F, R>(self, path: &str, handler: F) -> Participant
    where
        P: DeserializeOwned + Send + 'static,
        A: Serialize,
        F: Fn(Call<P>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, HandlerError>> + Send + 'static,
    {
        self.handle(Op::Action, path, handler)
    }

    /// Calls the function for compensations of this path. It undoes what the action of the same
    /// gid and step may have done, succeeds where there is nothing to undo, and is called again
    /// until it succeeds.
    pub fn compensate<P, A, F, R>(self, path: &str, handler: F) -> Participant
    where
        P: DeserializeOwned + Send + 'static,
        A: Serialize,
        F: Fn(Call<P>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, HandlerError>> + Send + 'static,
    {
        self.handle(Op::Compensate, path, handler)
    }

    fn handle<P, A, F, R>(self, op: Op, path: &str, handler: F) -> Participant
    where
        P: DeserializeOwned + Send + 'static,
        A: Serialize,
        F: Fn(Call<P>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, HandlerError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let erased = move |about, body: &Bytes| -> Running {
            let (handler, body) = (Arc::clone(&handler), body.clone());
            Box::pin(async move { answer(&handler(call(about, &body)?).await?) })
        };
        self.add(op, path, Handler::Plain(Arc::new(erased)))
    }

    fn add(mut self, op: Op, path: &str, handler: Handler) -> Participant {
        let path = format!("/{}", path.strip_prefix('/').unwrap_or(path));
        let url = format!("{}{}{path}", NamedUrl::SCHEME, self.name);
        if self.fault.is_none() && (path.contains('?') || NamedUrl::parse(&url).is_none()) {
            self.fault = Some(format!(
                "found the path {path:?}; allowed: the characters A-Z a-z 0-9 . _ ~ : @ / -, without .."
            ));
        }
        let taken = self.handlers.insert((op, path.clone()), handler);
        if taken.is_some() && self.fault.is_none() {
            let op = op.as_str();
            self.fault = Some(format!("found two handlers of the {op} {path:?}; allowed: one"));
        }
        self
    }

    /// Whether each handler gets a transaction of the saga's own database.
    pub(crate) fn is_transactional(&self) -> bool {
        self.handlers.values().any(|handler| matches!(handler, Handler::Transactional(_)))
    }

    /// The handler of an op's path, without its query.
    pub(super) fn handler(&self, op: Op, path: &str) -> Option<&Handler> {
        let path = path.split('?').next().unwrap_or("");
        self.handlers.get(&(op, path.to_owned()))
    }

    /// The paths that have a handler of this op, for people.
    pub(super) fn paths(&self, op: Op) -> String {
        let mut paths: Vec<&str> =
            self.handlers.keys().filter(|(of, _)| *of == op).map(|(_, path)| path.as_str()).collect();
        paths.sort_unstable();
        if paths.is_empty() { "none".to_owned() } else { paths.join(", ") }
    }

    /// Why a worker cannot have this participant.
    pub(crate) fn fault(&self) -> Option<&str> {
        match (&self.fault, self.limit) {
            (Some(fault), _) => Some(fault),
            (None, _) if self.handlers.is_empty() => Some("found no handler; allowed: one or more"),
            (None, Some(0)) => Some("found a limit of 0; allowed: 1 or more"),
            (None, _) => None,
        }
    }
}

impl TransactionalParticipant {
    /// The default of [`TransactionalParticipant::limit`].
    pub const LIMIT: usize = 16;

    /// A participant of this name without handlers. Steps call it as `participant:NAME/PATH`.
    pub fn new(name: impl Into<String>) -> TransactionalParticipant {
        TransactionalParticipant(Participant::new(name).limit(TransactionalParticipant::LIMIT))
    }

    /// Bounds the calls of this participant that run at once in this process, for each database: 16
    /// by default. The worker opens as many connections for them.
    pub fn limit(self, calls_max: usize) -> TransactionalParticipant {
        TransactionalParticipant(self.0.limit(calls_max))
    }

    /// Calls the function for actions of this path, with a transaction. As
    /// [`Participant::action`] in all else.
    pub fn action<P, A, F, R>(self, path: &str, handler: F) -> TransactionalParticipant
    where
        P: DeserializeOwned + Send + 'static,
        A: Serialize,
        F: Fn(Call<P>, HandlerTransaction) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, HandlerError>> + Send + 'static,
    {
        self.handle(Op::Action, path, handler)
    }

    /// Calls the function for compensations of this path, with a transaction. As
    /// [`Participant::compensate`] in all else.
    pub fn compensate<P, A, F, R>(self, path: &str, handler: F) -> TransactionalParticipant
    where
        P: DeserializeOwned + Send + 'static,
        A: Serialize,
        F: Fn(Call<P>, HandlerTransaction) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, HandlerError>> + Send + 'static,
    {
        self.handle(Op::Compensate, path, handler)
    }

    fn handle<P, A, F, R>(self, op: Op, path: &str, handler: F) -> TransactionalParticipant
    where
        P: DeserializeOwned + Send + 'static,
        A: Serialize,
        F: Fn(Call<P>, HandlerTransaction) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, HandlerError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let erased = move |about, body: &Bytes, transaction| -> Running {
            let (handler, body) = (Arc::clone(&handler), body.clone());
            Box::pin(async move { answer(&handler(call(about, &body)?, transaction).await?) })
        };
        TransactionalParticipant(self.0.add(op, path, Handler::Transactional(Arc::new(erased))))
    }
}

impl From<TransactionalParticipant> for Participant {
    fn from(participant: TransactionalParticipant) -> Participant {
        participant.0
    }
}

/// A call with a payload of the handler's type.
fn call<P: DeserializeOwned>(about: About, body: &Bytes) -> Result<Call<P>, HandlerError> {
    Ok(Call { payload: read(body)?, about: Arc::new(about) })
}

fn answer(answer: &impl Serialize) -> Returned {
    serde_json::to_vec(answer).map_err(|error| format!("answer: it becomes no JSON: {error}").into())
}

/// A payload as the handler's type. A step without a payload has null.
fn read<P: DeserializeOwned>(body: &[u8]) -> Result<P, HandlerError> {
    let body = if body.is_empty() { b"null" } else { body };
    let mut json = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = match error.path().to_string().as_str() {
            "." => "payload".to_owned(),
            path => format!("payload: {path}"),
        };
        HandlerError::refuse(format!("{place}: {}", error.into_inner()))
    })
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participant")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("actions", &self.paths(Op::Action))
            .field("compensations", &self.paths(Op::Compensate))
            .finish()
    }
}
