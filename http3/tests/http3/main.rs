//! WebSockets over HTTP/3, through the public API.

mod echo;
mod endings;
mod handshake;
mod support;
