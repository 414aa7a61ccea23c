//! Servers and nodes, which the tests share.

pub(crate) mod node;
pub(crate) mod server;
