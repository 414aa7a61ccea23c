//! `bowline bench`, against servers of this process.

#[cfg(target_os = "linux")]
mod compare;
mod modes;
mod open_model;
mod report;
mod support;
