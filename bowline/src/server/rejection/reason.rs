//! The reasons for rejections, by which a server counts them.

use std::fmt;

/// The reason why a request, or a connection before its request, did not become a WebSocket.
///
/// [`ServerStats::rejections`](crate::ServerStats::rejections) counts by these reasons. `Display` writes the
/// name in snake case, for labels of metrics.
///
/// ```
/// use bowline::RejectionReason;
///
/// assert_eq!(RejectionReason::OnRequest.to_string(), "on_request");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RejectionReason {
    /// The request was no valid handshake, or not HTTP.
    Handshake,
    /// The page was of a foreign origin: see [`Acceptor::allow_origin`](crate::Acceptor::allow_origin).
    Origin,
    /// [`Server::on_request`](crate::Server::on_request) rejected the request, or panicked.
    OnRequest,
    /// [`Server::fallback`](crate::Server::fallback) panicked, or returned no final status.
    Fallback,
    /// The head of the request was larger than [`Limits`](crate::Limits) allow.
    HeadSize,
    /// The handshake took longer than
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout).
    Timeout,
    /// The TLS handshake failed.
    Tls,
    /// The client ended the connection, or the connection broke, before the handshake was done.
    Disconnected,
    /// The server had as many connections as [`Server::connections`](crate::Server::connections) allows.
    Connections,
    /// The client's address had as many connections as
    /// [`Server::connections_per_address`](crate::Server::connections_per_address) allows.
    ConnectionsPerAddress,
    /// There were more handshakes than
    /// [`Server::handshakes_per_second`](crate::Server::handshakes_per_second) allows.
    HandshakesPerSecond,
    /// The server shut down before the handshake was done.
    Shutdown,
}

impl RejectionReason {
    /// All reasons, in the order of their discriminants.
    pub(crate) const ALL: [Self; 12] = [
        Self::Handshake,
        Self::Origin,
        Self::OnRequest,
        Self::Fallback,
        Self::HeadSize,
        Self::Timeout,
        Self::Tls,
        Self::Disconnected,
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::HandshakesPerSecond,
        Self::Shutdown,
    ];

    /// Returns `true` for the limits on the load of the server, which say nothing about the request.
    pub(crate) fn is_of_load(self) -> bool {
        matches!(self, Self::Connections | Self::ConnectionsPerAddress | Self::HandshakesPerSecond)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Origin => "origin",
            Self::OnRequest => "on_request",
            Self::Fallback => "fallback",
            Self::HeadSize => "head_size",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Disconnected => "disconnected",
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::HandshakesPerSecond => "handshakes_per_second",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::RejectionReason;

    #[test]
    fn each_reason_has_its_own_counter() {
        for (index, reason) in RejectionReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
