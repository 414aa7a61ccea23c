//! `bowline serve`, as users run it: the program is started, and clients of the library talk to it.

mod exec;
mod files;
mod gateway;
#[cfg(feature = "http3")]
mod http3;
mod modes;
mod process;
mod start;
