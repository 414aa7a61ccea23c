//! Opening handshakes over HTTP/1.1, directly, through proxies and under TLS.

mod acceptance;
mod by_hand;
#[cfg(feature = "tls")]
mod certificates;
mod client;
mod pair;
mod proxy;
mod reconnecting;
mod requests;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod times;
#[cfg(feature = "tls")]
mod tls;
