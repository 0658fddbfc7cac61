//! Who may see the page and who may decide: the token, sessions, visitors, and the checks of every
//! request.

pub(crate) mod guard;
pub(crate) mod session;
pub(crate) mod token;
pub(crate) mod visitor;
