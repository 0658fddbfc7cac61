//! The layout of the workspace: which crate may depend on which.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod crates;
