//! The sources of a server's connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

/// A source of connections for a [`Server`](crate::Server).
///
/// tokio's `TcpListener` and `UnixListener` are listeners. A type of your own can read the PROXY protocol,
/// count bytes, or accept from several sockets.
///
/// The server calls [`accept`](Self::accept) again only after the last call has returned. A listener that
/// waits for a client must therefore do so elsewhere, such as in tasks of a `JoinSet`. Otherwise, a slow
/// client keeps all others waiting.
///
/// # Examples
///
/// A listener for a server behind a balancer that sends version 1 of the
/// [PROXY protocol](https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt). The addresses that handlers
/// see are those of the clients:
///
/// ```
/// use std::io;
/// use std::net::SocketAddr;
/// use std::time::Duration;
///
/// use bowline::Listener;
/// use tokio::io::AsyncReadExt;
/// use tokio::net::{TcpListener, TcpStream};
/// use tokio::task::JoinSet;
/// use tokio::time::timeout;
///
/// struct ProxyProtocol {
///     listener: TcpListener,
///     /// The connections whose first line has not arrived yet.
///     arriving: JoinSet<io::Result<(TcpStream, Option<SocketAddr>)>>,
/// }
///
/// impl Listener for ProxyProtocol {
///     type Stream = TcpStream;
///
///     async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
///         loop {
///             tokio::select! {
///                 accepted = self.listener.accept() => {
///                     let (stream, _balancer) = accepted?;
///                     self.arriving.spawn(async move {
///                         timeout(Duration::from_secs(5), read_first_line(stream)).await?
///                     });
///                 }
///                 arrived = self.arriving.join_next(), if !self.arriving.is_empty() => {
///                     // A connection without a valid first line is dropped.
///                     if let Some(Ok(Ok(arrived))) = arrived {
///                         return Ok(arrived);
///                     }
///                 }
///             }
///         }
///     }
/// }
///
/// /// Reads a line such as `PROXY TCP4 203.0.113.7 198.51.100.1 51234 443`, and no byte more.
/// async fn read_first_line(mut stream: TcpStream) -> io::Result<(TcpStream, Option<SocketAddr>)> {
///     let mut line = Vec::new();
///     while !line.ends_with(b"\r\n") {
///         if line.len() == 107 {
///             return Err(io::Error::other("the first line is too long"));
///         }
///         line.push(stream.read_u8().await?);
///     }
///     let line = String::from_utf8_lossy(&line);
///     match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
///         ["PROXY", "TCP4" | "TCP6", ip, _, port, _] => {
///             let ip = ip.parse().map_err(io::Error::other)?;
///             let port = port.parse().map_err(io::Error::other)?;
///             Ok((stream, Some(SocketAddr::new(ip, port))))
///         }
///         ["PROXY", "UNKNOWN", ..] => Ok((stream, None)),
///         _ => Err(io::Error::other("the first line is not one of the PROXY protocol")),
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a server can't accept connections from `{Self}`",
    label = "must be `TcpListener` or `UnixListener` of tokio, or implement `bowline::Listener`",
    note = "a listener of std becomes one of tokio with `set_nonblocking(true)` and `TcpListener::from_std`"
)]
pub trait Listener: Send {
    /// The stream of a connection.
    ///
    /// A [`TcpStream`] is used directly, without any layer between. The server switches its `TCP_NODELAY` on,
    /// also under TLS by tokio-rustls.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for a connection, and returns its stream and the address of its client, if it has one.
    ///
    /// The address is the one that [`WebSocket::peer_addr`](crate::WebSocket::peer_addr) returns.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection could not be accepted. The server reports the error to
    /// [`Server::on_error`](crate::Server::on_error), and calls the method again after 100 ms. Errors that
    /// concern one connection only, such as
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset), are ignored.
    ///
    /// # Cancel safety
    ///
    /// The server drops the future only to stop accepting. Then it drops the listener too.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Option<SocketAddr>)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        Ok((stream, Some(peer)))
    }
}

/// A client of a Unix socket has no address.
#[cfg(unix)]
impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<(UnixStream, Option<SocketAddr>)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((stream, None))
    }
}
