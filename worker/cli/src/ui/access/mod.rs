//! Who may see the page, and who may decide: token, sessions, visitors, and what every request
//! passes.

pub(crate) mod guard;
pub(crate) mod session;
pub(crate) mod token;
pub(crate) mod visitor;
