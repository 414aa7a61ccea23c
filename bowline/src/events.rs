//! What is told to `tracing`: of handshakes and of the life of connections, never of messages and what is in them.
//!
//! A subscriber is code of the application's, which may well use the connection: no event is told under a lock.

#[cfg(not(feature = "tracing"))]
pub(crate) use absent::*;
#[cfg(feature = "tracing")]
pub(crate) use present::*;

/// The side that started the closing handshake (RFC 6455 7.1.2).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Initiator {
    Us,
    Peer,
}

#[cfg(feature = "tracing")]
mod present {
    use std::net::SocketAddr;

    #[cfg(any(feature = "client", feature = "server"))]
    use bowline_proto::DeflateParameters;
    use bowline_proto::{CloseCode, Role};
    use tracing::{Level, event};

    use super::Initiator;
    use crate::error::Error;

    const TARGET: &str = "bowline";

    fn role_name(role: Role) -> &'static str {
        match role {
            Role::Client => "client",
            Role::Server => "server",
        }
    }

    fn code_of(code: Option<CloseCode>) -> Option<u16> {
        code.map(|code| code.0)
    }

    /// An opening handshake was accepted: by us as a server, or by the server.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn handshake_accepted(
        role: Role,
        subprotocol: Option<&str>,
        deflate: Option<DeflateParameters>,
    ) {
        let deflate = deflate.map(tracing::field::debug);
        event!(
            name: "handshake_accepted", target: TARGET, Level::DEBUG,
            role = role_name(role), subprotocol, deflate, "handshake accepted"
        );
    }

    /// An opening handshake was not accepted.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn handshake_rejected(role: Role, status: http::StatusCode, reason: impl std::fmt::Display) {
        event!(
            name: "handshake_rejected", target: TARGET, Level::INFO,
            role = role_name(role), status = status.as_u16(), reason = display(reason), "handshake rejected"
        );
    }

    pub(crate) fn connection_opened(role: Role, peer: Option<SocketAddr>) {
        event!(
            name: "connection_opened", target: TARGET, Level::DEBUG,
            role = role_name(role), peer = peer.map(display), "connection opened"
        );
    }

    /// The first Close frame was sent, or came; or what stands in for it.
    pub(crate) fn connection_closed(peer: Option<SocketAddr>, by: Initiator, code: Option<CloseCode>) {
        let by = match by {
            Initiator::Us => "us",
            Initiator::Peer => "peer",
        };
        event!(
            name: "connection_closed", target: TARGET, Level::DEBUG,
            by, code = code_of(code), peer = peer.map(display), "connection closed"
        );
    }

    /// The peer broke the protocol, or went over a limit.
    pub(crate) fn connection_failed(peer: Option<SocketAddr>, code: CloseCode, error: &Error) {
        event!(
            name: "connection_failed", target: TARGET, Level::INFO,
            code = code.0, error = display(error), peer = peer.map(display), "connection failed"
        );
    }

    /// The transport ended, or the peer did not end it in time.
    pub(crate) fn connection_lost(peer: Option<SocketAddr>, error: &Error) {
        event!(
            name: "connection_lost", target: TARGET, Level::INFO,
            error = display(error), peer = peer.map(display), "connection lost"
        );
    }

    /// The peer is gone, as the keepalive has found out.
    pub(crate) fn keepalive_lost(peer: Option<SocketAddr>, error: &Error) {
        event!(
            name: "keepalive_lost", target: TARGET, Level::INFO,
            error = display(error), peer = peer.map(display), "keepalive lost"
        );
    }
}

/// The same, told to nobody.
#[cfg(not(feature = "tracing"))]
mod absent {
    use std::net::SocketAddr;

    #[cfg(any(feature = "client", feature = "server"))]
    use bowline_proto::DeflateParameters;
    use bowline_proto::{CloseCode, Role};

    use super::Initiator;
    use crate::error::Error;

    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn handshake_accepted(_: Role, _: Option<&str>, _: Option<DeflateParameters>) {}

    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn handshake_rejected(_: Role, _: http::StatusCode, _: impl std::fmt::Display) {}

    pub(crate) fn connection_opened(_: Role, _: Option<SocketAddr>) {}

    pub(crate) fn connection_closed(_: Option<SocketAddr>, _: Initiator, _: Option<CloseCode>) {}

    pub(crate) fn connection_failed(_: Option<SocketAddr>, _: CloseCode, _: &Error) {}

    pub(crate) fn connection_lost(_: Option<SocketAddr>, _: &Error) {}

    pub(crate) fn keepalive_lost(_: Option<SocketAddr>, _: &Error) {}
}
