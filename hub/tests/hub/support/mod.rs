//! Brokers of this process, which fail in all ways that they can.

pub(crate) mod broker;
pub(crate) mod presence_broker;
