//! Servers, nodes, and the lines between them, which the tests share.

pub(crate) mod node;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod server;
