//! The events for `tracing`: handshakes, and the beginning and end of connections; and the spans of handlers.
//!
//! No event reports a message or its content. The crate documentation has the table of names, levels and
//! fields.
//!
//! A subscriber is foreign code, which may use the connection that the event is about. Therefore no event is
//! emitted under a lock.

#[cfg(any(feature = "client", feature = "server"))]
use std::net::SocketAddr;

#[cfg(any(feature = "client", feature = "server"))]
use bowline_proto::Role;

#[cfg(not(feature = "tracing"))]
pub(crate) use absent::*;
#[cfg(feature = "tracing")]
pub(crate) use present::*;

/// The opening handshake that an event is about.
#[cfg(any(feature = "client", feature = "server"))]
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "nobody is told"))]
#[derive(Clone, Copy)]
pub(crate) struct HandshakeSubject<'a> {
    role: Role,
    /// The client and the path that it asked for, on a server that knows them.
    peer: Option<SocketAddr>,
    path: Option<&'a str>,
}

#[cfg(any(feature = "client", feature = "server"))]
impl<'a> HandshakeSubject<'a> {
    #[cfg(feature = "client")]
    pub(crate) fn of_client() -> Self {
        Self { role: Role::Client, peer: None, path: None }
    }

    /// Describes the handshake of a server. Its HTTP library may have put the client's address into the
    /// extensions of the request.
    #[cfg(feature = "server")]
    pub(crate) fn of_server(peer: Option<&SocketAddr>, uri: &'a http::Uri) -> Self {
        Self { role: Role::Server, peer: peer.copied(), path: Some(uri.path()) }
    }
}

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
    #[cfg(feature = "server")]
    use tracing::{Span, instrument::Instrument, span};

    #[cfg(any(feature = "client", feature = "server"))]
    use super::HandshakeSubject;
    use super::Initiator;
    use crate::error::Error;
    #[cfg(any(feature = "client", feature = "server"))]
    use crate::error::escaped;

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

    /// The span of a handler. It is a child of the span in which the request was accepted.
    #[cfg(feature = "server")]
    pub(crate) struct HandlerSpan(Span);

    #[cfg(feature = "server")]
    impl HandlerSpan {
        pub(crate) fn new(subject: HandshakeSubject<'_>) -> Self {
            let HandshakeSubject { peer, path, .. } = subject;
            Self(span!(
                target: TARGET, Level::INFO, "websocket",
                peer = peer.map(display), path = path.map(escaped).map(display)
            ))
        }

        pub(crate) fn run<F: Future>(self, handler: F) -> impl Future<Output = F::Output> {
            handler.instrument(self.0)
        }
    }

    /// Reports that an opening handshake was accepted.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn handshake_accepted(
        subject: HandshakeSubject<'_>,
        subprotocol: Option<&str>,
        deflate: Option<DeflateParameters>,
    ) {
        let HandshakeSubject { role, peer, path } = subject;
        let deflate = deflate.map(tracing::field::debug);
        event!(
            name: "handshake_accepted", target: TARGET, Level::DEBUG,
            role = role_name(role), peer = peer.map(display), path = path.map(escaped).map(display),
            subprotocol, deflate, "handshake accepted"
        );
    }

    /// Reports that an opening handshake was rejected.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn handshake_rejected(
        subject: HandshakeSubject<'_>,
        status: http::StatusCode,
        reason: impl std::fmt::Display,
    ) {
        let HandshakeSubject { role, peer, path } = subject;
        event!(
            name: "handshake_rejected", target: TARGET, Level::INFO,
            role = role_name(role), peer = peer.map(display), path = path.map(escaped).map(display),
            status = status.as_u16(), reason = display(reason), "handshake rejected"
        );
    }

    /// Reports that a connection is open.
    pub(crate) fn connection_opened(role: Role, peer: Option<SocketAddr>) {
        event!(
            name: "connection_opened", target: TARGET, Level::DEBUG,
            role = role_name(role), peer = peer.map(display), "connection opened"
        );
    }

    /// Reports the start of the closing handshake, or the drop of the `WebSocket` in its place.
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

    /// Reports that the peer broke the protocol or exceeded a limit.
    pub(crate) fn connection_failed(peer: Option<SocketAddr>, code: CloseCode, error: &Error) {
        event!(
            name: "connection_failed", target: TARGET, Level::INFO,
            code = code.0, error = display(error), peer = peer.map(display), "connection failed"
        );
    }

    /// Reports that the transport ended without a closing handshake, or was not closed in time.
    pub(crate) fn connection_lost(peer: Option<SocketAddr>, error: &Error) {
        event!(
            name: "connection_lost", target: TARGET, Level::INFO,
            error = display(error), peer = peer.map(display), "connection lost"
        );
    }

    /// Reports that the keepalive found the peer gone.
    pub(crate) fn keepalive_lost(peer: Option<SocketAddr>, error: &Error) {
        event!(
            name: "keepalive_lost", target: TARGET, Level::INFO,
            error = display(error), peer = peer.map(display), "keepalive lost"
        );
    }
}

/// Items with the same signatures that do nothing.
#[cfg(not(feature = "tracing"))]
mod absent {
    use std::net::SocketAddr;

    #[cfg(any(feature = "client", feature = "server"))]
    use bowline_proto::DeflateParameters;
    use bowline_proto::{CloseCode, Role};

    #[cfg(any(feature = "client", feature = "server"))]
    use super::HandshakeSubject;
    use super::Initiator;
    use crate::error::Error;

    #[cfg(feature = "server")]
    pub(crate) struct HandlerSpan;

    #[cfg(feature = "server")]
    impl HandlerSpan {
        pub(crate) fn new(_: HandshakeSubject<'_>) -> Self {
            Self
        }

        pub(crate) fn run<F: Future>(self, handler: F) -> F {
            let Self = self;
            handler
        }
    }

    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn handshake_accepted(_: HandshakeSubject<'_>, _: Option<&str>, _: Option<DeflateParameters>) {
    }

    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn handshake_rejected(
        _: HandshakeSubject<'_>,
        _: http::StatusCode,
        _: impl std::fmt::Display,
    ) {
    }

    pub(crate) fn connection_opened(_: Role, _: Option<SocketAddr>) {}

    pub(crate) fn connection_closed(_: Option<SocketAddr>, _: Initiator, _: Option<CloseCode>) {}

    pub(crate) fn connection_failed(_: Option<SocketAddr>, _: CloseCode, _: &Error) {}

    pub(crate) fn connection_lost(_: Option<SocketAddr>, _: &Error) {}

    pub(crate) fn keepalive_lost(_: Option<SocketAddr>, _: &Error) {}
}
