//! The rules that a producer's check, the INSERT and a worker must all know: what a name, a URL, a
//! header and a number may be, how large JSON is once Postgres prints it, and the statuses of a
//! saga.
//!
//! Nothing here asks a database. SQL has the same rules, and `pgsaga-tests` compares the two
//! (`tests/tests/validation`).

mod header;
mod json;
mod limit;
mod name;
mod named_url;
mod number;
mod status;
mod step_key;
mod target;
mod url;

pub use header::{RESERVED_HEADERS, is_header_name, is_header_value, is_reserved_header};
pub use json::JsonSize;
pub use limit::*;
pub use name::{Name, default_step_name};
pub use named_url::NamedUrl;
pub use number::Number;
pub use status::SagaStatus;
pub use step_key::*;
pub use target::Target;
pub use url::RESERVED_QUERY_KEYS;
