//! `bowline bench`, against servers of this process.

mod modes;
mod open_model;
mod report;
mod support;
