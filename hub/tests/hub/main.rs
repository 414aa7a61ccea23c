//! Tests of the hub through its public API.

mod checker;
mod faults;
mod handler;
mod history;
mod interleavings;
mod last;
mod limits;
mod live;
mod once;
mod presence;
mod presence_checker;
mod presence_faults;
mod races;
mod resubscription;
mod slow;
mod stress;
mod support;
