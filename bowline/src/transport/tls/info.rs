//! The result of a server's TLS handshake, for the application.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use http::Extensions;
use rustls::pki_types::CertificateDer;
use rustls::{ProtocolVersion, ServerConnection};
use tokio::net::TcpStream;
use tokio_rustls::{TlsStream, server};

/// The result of a server's TLS handshake: who the client is, and which host it asked for.
///
/// Under [`Server::tls`](crate::Server::tls), the extensions of each request's head contain a `TlsInfo`. The
/// extensions also contain one if the application itself does TLS by tokio-rustls, over TCP or a Unix socket,
/// and passes the stream to [`Acceptor::accept_stream`](crate::Acceptor::accept_stream) or through a
/// [`Listener`](crate::Listener). Over HTTP/2, all requests of a connection share a `TlsInfo`.
///
/// Clones are cheap, as they share their content. Over HTTP/1.1, the content is freed with the last clone: a
/// handler that takes no head keeps no copy of the client's certificates. Over HTTP/2, the content lives as
/// long as the connection. Available with the features `server` and `tls`.
///
/// ```
/// use bowline::http::StatusCode;
/// use bowline::http::request::Parts;
/// use bowline::{Rejection, Server, TlsInfo};
///
/// let server = Server::new().on_request(|head: Parts| async move {
///     let tls = head.extensions.get::<TlsInfo>();
///     match tls.and_then(TlsInfo::server_name) {
///         Some("chat.example.com") => Ok(head),
///         _ => Err(Rejection::from(StatusCode::MISDIRECTED_REQUEST)),
///     }
/// });
/// ```
#[derive(Clone)]
pub struct TlsInfo(Arc<Inner>);

struct Inner {
    server_name: Option<Box<str>>,
    peer_certificates: Box<[CertificateDer<'static>]>,
    protocol_version: ProtocolVersion,
}

impl TlsInfo {
    /// Creates the result of a handshake that another transport has done, such as QUIC, for the extensions of
    /// its requests.
    ///
    /// The certificates are those of the client, its own first, or none.
    ///
    /// ```
    /// use bowline::TlsInfo;
    /// use bowline::rustls::ProtocolVersion;
    ///
    /// let tls = TlsInfo::new(ProtocolVersion::TLSv1_3, Some("chat.example.com"), Vec::new());
    /// assert_eq!(tls.server_name(), Some("chat.example.com"));
    /// ```
    pub fn new(
        protocol_version: ProtocolVersion,
        server_name: Option<&str>,
        peer_certificates: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self(Arc::new(Inner {
            server_name: server_name.map(Box::from),
            peer_certificates: peer_certificates.into(),
            protocol_version,
        }))
    }

    /// Returns the name of the host that the client asked for (SNI, RFC 6066 3), in lower case.
    ///
    /// Returns `None` if the client sent no name. A client that connects to an IP address sends none.
    pub fn server_name(&self) -> Option<&str> {
        self.0.server_name.as_deref()
    }

    /// Returns the client's certificates: its own first, then the intermediate ones that it sent.
    ///
    /// The slice is empty unless the [`ServerConfig`](rustls::ServerConfig) asks for client certificates. The
    /// verifier of that configuration has accepted the certificates.
    ///
    /// ```
    /// use bowline::{TlsInfo, WebSocket};
    /// use bowline::http::request::Parts;
    ///
    /// type HandlerResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;
    ///
    /// async fn greet(head: Parts, socket: WebSocket) -> HandlerResult {
    ///     let tls: &TlsInfo = head.extensions.get().ok_or("the connection is not over TLS")?;
    ///     let certificate = tls.peer_certificates().first().ok_or("the client has no certificate")?;
    ///     socket.send(format!("your certificate has {} bytes", certificate.len())).await?;
    ///     Ok(())
    /// }
    /// ```
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.0.peer_certificates
    }

    /// Returns the version of TLS on which the handshake has agreed.
    ///
    /// ```
    /// use bowline::TlsInfo;
    /// use bowline::rustls::ProtocolVersion;
    ///
    /// fn is_modern(tls: &TlsInfo) -> bool {
    ///     tls.protocol_version() == ProtocolVersion::TLSv1_3
    /// }
    /// ```
    pub fn protocol_version(&self) -> ProtocolVersion {
        self.0.protocol_version
    }

    /// Inserts the result into the extensions of a request.
    pub(crate) fn describe(&self, extensions: &mut Extensions) {
        extensions.insert(self.clone());
    }

    /// Returns the result of the handshake of `stream`, if `stream` is the server's end of TLS by
    /// tokio-rustls over TCP or a Unix socket.
    pub(crate) fn of_any(stream: &dyn Any) -> Option<Self> {
        connection_over::<TcpStream>(stream).or_else(|| connection_over_unix(stream)).and_then(Self::of)
    }

    /// Returns the result of the handshake of `connection`, or `None` before its end.
    pub(crate) fn of(connection: &ServerConnection) -> Option<Self> {
        Some(Self(Arc::new(Inner {
            protocol_version: connection.protocol_version()?,
            server_name: connection.server_name().map(Box::from),
            peer_certificates: connection.peer_certificates().map(Box::from).unwrap_or_default(),
        })))
    }
}

/// Shows the number of certificates instead of their content.
impl fmt::Debug for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsInfo")
            .field("server_name", &self.server_name())
            .field("peer_certificates", &self.peer_certificates().len())
            .field("protocol_version", &self.protocol_version())
            .finish()
    }
}

/// Returns the connection of TLS in `stream`, if `stream` is the server's end of TLS over an `S`.
fn connection_over<S: 'static>(stream: &dyn Any) -> Option<&ServerConnection> {
    if let Some(stream) = stream.downcast_ref::<server::TlsStream<S>>() {
        return Some(stream.get_ref().1);
    }
    match stream.downcast_ref::<TlsStream<S>>()? {
        TlsStream::Server(stream) => Some(stream.get_ref().1),
        TlsStream::Client(_) => None,
    }
}

/// Returns the connection of TLS in `stream`, if `stream` is the server's end of TLS over a Unix socket.
#[cfg(unix)]
fn connection_over_unix(stream: &dyn Any) -> Option<&ServerConnection> {
    connection_over::<tokio::net::UnixStream>(stream)
}

#[cfg(not(unix))]
fn connection_over_unix(_stream: &dyn Any) -> Option<&ServerConnection> {
    None
}
