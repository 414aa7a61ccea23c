//! The absence of HTTP/3, in a build without the feature `http3`.

#![expect(clippy::unused_async, reason = "the functions have the signatures of those that they replace")]

use std::io;
use std::net::SocketAddr;

use bowline::http::{Response, Uri};
use bowline::{Connector, Error, ErrorKind, Handler, Server, ShutdownSummary, WebSocket};
use tokio::net::UdpSocket;

const ABSENT: &str = "this program was built without HTTP/3 (the feature `http3` of bowline-cli)";

/// The reason for which this program has no HTTP/3, if so.
pub(crate) const ABSENCE: Option<&str> = Some(ABSENT);

/// Fails.
pub(crate) async fn connect(
    _: &Connector,
    _: &Uri,
    _: Option<Vec<SocketAddr>>,
) -> Result<(WebSocket, Response<()>), Error> {
    Err(Error::new(ErrorKind::InvalidInput, ABSENT))
}

/// Fails.
pub(crate) async fn serve<H: Handler<M>, M: 'static>(
    _: Server,
    _: UdpSocket,
    _: H,
) -> io::Result<ShutdownSummary> {
    Err(io::Error::new(io::ErrorKind::Unsupported, ABSENT))
}
