//! The absence of HTTP/3, in a build without the feature `http3`.

#![expect(clippy::unused_async, reason = "the functions have the signatures of those that they replace")]

use std::io;
use std::net::SocketAddr;

use bowline::http::{Request, Response, Uri};
use bowline::{Connector, Error, ErrorKind, Handler, Server, ShutdownSummary, WebSocket};
use tokio::net::UdpSocket;

use crate::raw_stream::RawStream;

const ABSENT: &str = "this program was built without HTTP/3 (the feature `http3` of bowline-cli)";

/// The reason for which this program has no HTTP/3, if so.
pub(crate) const ABSENCE: Option<&str> = Some(ABSENT);

/// A connection, of which there is none.
#[derive(Clone)]
pub(crate) enum Connection {}

/// Fails.
pub(crate) async fn open(_: &Connector, _: &Uri, _: Vec<SocketAddr>) -> Result<Connection, Error> {
    Err(Error::new(ErrorKind::InvalidInput, ABSENT))
}

/// Is never called, as there is no connection.
pub(crate) async fn request(
    connection: &Connection,
    _: Request<()>,
) -> Result<Response<Box<dyn RawStream>>, Error> {
    match *connection {}
}

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
