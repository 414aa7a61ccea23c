//! Tests of the hub through its public API.

mod checker;
mod faults;
mod history;
mod interleavings;
mod last;
mod limits;
mod live;
mod once;
mod presence;
mod slow;
mod stress;
mod support;
