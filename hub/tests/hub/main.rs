//! Tests of the hub through its public API.

mod history;
mod live;
mod support;
