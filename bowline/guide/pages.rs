//! Pages on subjects that no single item covers.
//!
//! | page | subject |
//! |---|---|
//! | [`deploying`] | proxies, systemd, Kubernetes and the settings of the kernel |
//! | [`frameworks`] | axum and other frameworks, HTTP clients, TLS libraries, runtimes, protocols on top |
//! | [`browser`] | WebAssembly: pages, workers, Node |
//! | [`tls`] | providers of cryptography, roots, client certificates, reloading, FIPS |
//! | [`migrating_from_tokio_tungstenite`] | the calls of tokio-tungstenite and their counterparts |
//! | [`migrating_from_coder_websocket`] | the same for Go's `coder/websocket` |
//!
//! This module exists in the documentation only. Its pages are the files of the folder `bowline/guide`.

// The repository tests the examples of the pages with the features and crates that they need: see `pages` in
// `conformance/src/lib.rs`, and `conformance/frameworks`.

#[doc = include_str!("browser.md")]
pub mod browser {}

#[doc = include_str!("deploying.md")]
pub mod deploying {}

#[doc = include_str!("frameworks.md")]
pub mod frameworks {}

#[doc = include_str!("migrating-from-coder-websocket.md")]
pub mod migrating_from_coder_websocket {}

#[doc = include_str!("migrating-from-tokio-tungstenite.md")]
pub mod migrating_from_tokio_tungstenite {}

#[doc = include_str!("tls.md")]
pub mod tls {}
