//! `bowline check`, run as users run it: against right servers, and against servers with one fault each.

mod broken;
mod hostile;
mod output;
mod right;
mod support;
