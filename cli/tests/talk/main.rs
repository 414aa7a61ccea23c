//! `bowline URL`, run as users run it, against servers of the library.

mod ending;
mod json;
mod pipes;
#[cfg(target_os = "linux")]
mod prompt;
mod reach;
mod reconnect;
mod support;
