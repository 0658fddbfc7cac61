//! A look at each call before and after it is made, for test kits: what an author of sagas wants to
//! try (a call that comes twice, an answer that is lost) happens at this one place, for handlers
//! and for participants behind HTTP.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use pgsaga_plan::{Op, Outcome};
use pgsaga_sql::contract::Target;

use super::Executors;
use super::call::{Call, Called};
use super::handler::HandlerExecutor;
use crate::flow::participants::Reach;

/// Decides about calls. A worker has at most one, see
/// [`Builder::intercept`](crate::Builder::intercept).
pub trait Intercept: fmt::Debug + Send + Sync + 'static {
    /// What becomes of a call that is about to be made. The call is made when this returns.
    fn before<'a>(&'a self, call: &'a Intercepted) -> Deciding<'a, Decision>;

    /// A call was made, and ended like this. The worker goes on when this returns.
    fn after<'a>(&'a self, call: &'a Intercepted, outcome: Outcome) -> Deciding<'a, ()>;

    /// A call was not made after all: the participant's connections are full, or this worker may
    /// not call the participant. [`Intercept::before`] is asked again where it is made later.
    fn not_made(&self, call: &Intercepted);
}

/// The future of a method of [`Intercept`].
pub type Deciding<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A call, as an [`Intercept`] sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intercepted {
    /// The gid of the saga.
    pub gid: String,
    /// The position of the step, from 0.
    pub step: usize,
    /// What is called of the step.
    pub op: Op,
    /// Its effect commits together with the record of the attempt
    /// ([`TransactionalParticipant`](crate::TransactionalParticipant)).
    pub is_transactional: bool,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is made.
    Make,
    /// It is not made, and counts as refused for this reason.
    Refuse(String),
    /// It is made twice, with the same key. The second response counts.
    Repeat,
    /// It is made, and its response is lost.
    Lose,
}

impl Intercepted {
    fn of(call: &Call<'_>, is_transactional: bool) -> Intercepted {
        let (gid, step) = (call.task.saga.gid.clone(), call.task.now.step);
        Intercepted { gid, step, op: call.op(), is_transactional }
    }
}

impl Executors {
    /// Makes a call as the intercept decides.
    pub(super) async fn intercepted(
        &self,
        intercept: &Arc<dyn Intercept>,
        call: &Call<'_>,
        target: &Target,
        handlers: &HandlerExecutor,
    ) -> Called {
        let seen = Intercepted::of(call, self.is_transactional(target));
        let decision = intercept.before(&seen).await;
        if let Decision::Refuse(why) = decision {
            return Ok(call.ended(Outcome::Failure, Reach::Ran, Some(why)));
        }
        let make = async || {
            let made = self.make(call, target, handlers).await;
            match &made {
                Ok(result) => intercept.after(&seen, result.outcome).await,
                Err(_) => intercept.not_made(&seen),
            }
            made
        };
        let mut made = make().await;
        if decision == Decision::Repeat && made.is_ok() {
            made = make().await;
        }
        if decision == Decision::Lose && made.is_ok() {
            let why = "the response was lost".to_owned();
            return Ok(call.ended(Outcome::Unknown, Reach::Ran, Some(why)));
        }
        made
    }
}
