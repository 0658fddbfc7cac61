use crate::{Completion, Interrupt, Op, Outcome};

/// An enum whose values are words in a column of the database.
pub trait Word: Copy + 'static {
    /// Every value.
    const VALUES: &'static [Self];

    /// The word of the value.
    fn word(self) -> &'static str;

    /// The inverse of [`Word::word`].
    fn of(word: &str) -> Option<Self> {
        Self::VALUES.iter().copied().find(|value| value.word() == word)
    }
}

macro_rules! words {
    ($($name:ident)*) => { $(
        impl Word for $name {
            const VALUES: &'static [Self] = &$name::ALL;

            fn word(self) -> &'static str {
                self.as_str()
            }
        }
    )* };
}

words!(Completion Interrupt Op Outcome);
