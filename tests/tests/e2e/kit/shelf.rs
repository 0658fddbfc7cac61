//! A participant that keeps its duties, but for one planted bug.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pgsaga_worker::{Call, HandlerError, Participant};
use serde_json::{Value, json};

/// How long after its answer an effect comes that is late.
const LATE: Duration = Duration::from_millis(60);

/// What is wrong with a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// An action that comes twice acts twice.
    NotIdempotent,
    /// A compensation is refused.
    RefusesToUndo,
    /// A compensation undoes an action that never came.
    UndoesWhatWasNotDone,
    /// A compensation fails where there is nothing to undo.
    FailsToUndoNothing,
    /// A compensation is refused where there is nothing to undo.
    RefusesToUndoNothing,
    /// The answer comes before the effect.
    AnswersEarly,
    /// An action that comes after its compensation acts.
    ActsAfterUndo,
}

/// A shelf of one article.
#[derive(Debug)]
pub(super) struct Shelf {
    bug: Bug,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    articles: i64,
    taken: HashSet<String>,
    put_back: HashSet<String>,
}

impl Shelf {
    pub(super) fn new(bug: Bug) -> Shelf {
        let inside = Inside { articles: 1_000_000, taken: HashSet::new(), put_back: HashSet::new() };
        Shelf { bug, inside: Mutex::new(inside) }
    }

    /// Takes all articles away.
    pub(super) fn empty(&self) {
        self.inside().articles = 0;
    }

    pub(super) fn state(&self) -> Value {
        json!({"articles": self.inside().articles})
    }

    /// The participant `shelf`, with the action `take` and the compensation `put`.
    pub(super) fn participant(self: &Arc<Shelf>) -> Participant {
        let (take, put) = (Arc::clone(self), Arc::clone(self));
        Participant::new("shelf")
            .action("take", move |call: Call<i64>| {
                let shelf = Arc::clone(&take);
                async move { shelf.take(&call.key(), call.payload) }
            })
            .compensate("put", move |call: Call<i64>| {
                let shelf = Arc::clone(&put);
                async move { shelf.put(&call.action_key(), call.payload) }
            })
    }

    /// Takes articles, once for a key.
    pub(super) fn take(self: &Arc<Shelf>, key: &str, articles: i64) -> Result<(), HandlerError> {
        let inside = self.inside();
        if inside.put_back.contains(key) && self.bug != Bug::ActsAfterUndo {
            return Err(HandlerError::refuse("it was put back before"));
        }
        if inside.articles < articles {
            return Err(HandlerError::refuse("the shelf is empty"));
        }
        drop(inside);
        if self.bug == Bug::AnswersEarly {
            let (shelf, key) = (Arc::clone(self), key.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(LATE).await;
                shelf.take_now(&key, articles);
            });
        } else {
            self.take_now(key, articles);
        }
        Ok(())
    }

    fn take_now(&self, key: &str, articles: i64) {
        let mut inside = self.inside();
        let may_act = !inside.put_back.contains(key) || self.bug == Bug::ActsAfterUndo;
        let is_new = inside.taken.insert(key.to_owned()) || self.bug == Bug::NotIdempotent;
        if may_act && is_new {
            inside.articles -= articles;
        }
    }

    /// Puts back what was taken under a key.
    pub(super) fn put(&self, key: &str, articles: i64) -> Result<(), HandlerError> {
        if self.bug == Bug::RefusesToUndo {
            return Err(HandlerError::refuse("no returns"));
        }
        let mut inside = self.inside();
        if !inside.taken.contains(key) && !inside.put_back.contains(key) {
            match self.bug {
                Bug::FailsToUndoNothing => return Err("no such reservation".into()),
                Bug::RefusesToUndoNothing => return Err(HandlerError::refuse("no such reservation")),
                _ => {}
            }
        }
        let was_taken = inside.taken.contains(key) || self.bug == Bug::UndoesWhatWasNotDone;
        if inside.put_back.insert(key.to_owned()) && was_taken {
            inside.articles += articles;
        }
        Ok(())
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }
}
