//! Tests of the programs of `bowline/guide/frameworks.md`: a client of bowline talks to each server of the
//! page, and each client of the page to a server of bowline.

mod clients;
#[cfg(feature = "heavy")]
mod heavy;
mod manifest;
mod protocols;
mod proxy;
mod runtimes;
mod servers;
mod support;

/// The programs of the page.
mod programs {
    include!(concat!(env!("OUT_DIR"), "/programs.rs"));
}
