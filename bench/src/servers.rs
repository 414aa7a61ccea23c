//! The servers and clients that are compared.

mod accept;
pub mod connect;
mod echo;
#[cfg(feature = "frameworks")]
mod frameworks;
#[cfg(feature = "http2")]
mod http2;
#[cfg(feature = "http3")]
mod http3;
mod json;
mod library;
mod rooms;
pub mod serve;
mod stream;
mod tls;

pub use library::{Behavior, Library, MEMBERS};
