//! Everything that the application decides: rules of topics, limits, and the frames that members receive.

pub(crate) mod hooks;
pub(crate) mod limits;
pub(crate) mod rule;
