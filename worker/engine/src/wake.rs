//! How a worker learns that something is due, and from where on it looks.

pub mod listen;
pub mod watermark;
