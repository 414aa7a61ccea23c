//! Tests of the hub through its public API.

mod checker;
mod faults;
mod history;
mod limits;
mod live;
mod slow;
mod stress;
mod support;
