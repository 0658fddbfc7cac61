//! Whether this worker may work: it knows the schema, and the database is its own.

pub(crate) mod home;
pub(crate) mod schema;
