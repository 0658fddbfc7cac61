//! Whether this worker may work in its database. A copy of a database holds the sagas of its
//! original, and would call the original's participants under the same keys. The database decides
//! (`pgsaga.check_home`): by the name of the environment, and by the cluster that it was made in.
//!
//! A worker that may not work waits. It is not registered, so that no other worker counts on it. A
//! worker that may no longer work settles its calls in flight, and then leaves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The environment of this worker, and what the database says of it.
#[derive(Debug, Default)]
pub(crate) struct Home {
    environment: Option<String>,
    is_elsewhere: AtomicBool,
    misfit: Mutex<Option<String>>,
}

impl Home {
    pub(crate) fn new(environment: Option<String>) -> Home {
        Home { environment, ..Home::default() }
    }

    /// The environment that this worker works for.
    pub(crate) fn environment(&self) -> Option<&str> {
        self.environment.as_deref()
    }

    /// Learns why this worker may not work; `None` if it may. Each change is logged once. Returns
    /// whether this worker may work again.
    pub(crate) fn learn(&self, misfit: Option<String>) -> bool {
        let mut known = self.misfit.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == misfit {
            return false;
        }
        self.is_elsewhere.store(misfit.is_some(), Ordering::Release);
        match &misfit {
            Some(why) => {
                tracing::error!(
                    why,
                    "this worker may not work in this database: it claims nothing, and waits"
                );
            }
            None => tracing::info!("this worker may work in this database"),
        }
        *known = misfit;
        !self.is_elsewhere.load(Ordering::Acquire)
    }

    /// Whether this worker may claim, call and rescue.
    pub(crate) fn fits(&self) -> bool {
        // control: home-heeded
        !self.is_elsewhere.load(Ordering::Acquire)
    }

    /// Why this worker may not work.
    pub(crate) fn misfit(&self) -> Option<String> {
        self.misfit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_news() {
        let home = Home::new(Some("staging".to_owned()));
        assert!(!home.learn(None) && home.fits());
        assert!(!home.learn(Some("a copy".to_owned())) && !home.fits());
        assert_eq!(home.misfit().as_deref(), Some("a copy"));
        assert!(!home.learn(Some("a copy".to_owned())) && !home.fits());
        assert!(!home.learn(Some("another name".to_owned())) && !home.fits());
        assert!(home.learn(None) && home.fits() && home.misfit().is_none());
    }
}
