//! WebSockets over HTTP/3: connections of a client, and a server on a UDP socket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bowline::http::{Request, Response, Uri};
use bowline::{
    Connector, Error, ErrorKind, Handler, HandshakeTimes, Proxy, Server, ShutdownSummary, WebSocket,
};
use bowline_http3::{Http3Connection, Http3Server};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::raw_stream::RawStream;

/// The time of the opening handshake once QUIC is connected, as the library's default.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason for which this program has no HTTP/3, if so.
pub(crate) const ABSENCE: Option<&str> = None;

/// A connection, for requests that this program writes itself. A clone is the same connection.
pub(crate) type Connection = Http3Connection;

/// Opens a connection to one of these addresses, without a proxy.
pub(crate) async fn open(
    connector: &Connector,
    url: &Uri,
    addresses: Vec<SocketAddr>,
) -> Result<Connection, Error> {
    let connector = connector.clone().proxy(Proxy::none());
    Http3Connection::open_at(&connector, url, addresses).await
}

/// Sends a request, and returns the response with its stream.
pub(crate) async fn request(
    connection: &Connection,
    request: Request<()>,
) -> Result<Response<Box<dyn RawStream>>, Error> {
    let response = connection.tunnel(request).await?;
    Ok(response.map(|stream| -> Box<dyn RawStream> { Box::new(stream) }))
}

/// Opens a WebSocket on a QUIC connection of its own: to these addresses, or else to those of the host.
///
/// The times of the response are those of both steps together.
pub(crate) async fn connect(
    connector: &Connector,
    url: &Uri,
    addresses: Option<Vec<SocketAddr>>,
) -> Result<(WebSocket, Response<()>), Error> {
    let connection = match addresses {
        // As over TCP, a proxy of the environment is not for addresses that the user has chosen.
        Some(addresses) => open(connector, url, addresses).await?,
        None => Http3Connection::open(connector, url).await?,
    };
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    // A server may allow no stream, for which the library waits.
    let opening = timeout(HANDSHAKE_TIMEOUT, connection.connect(path)).await;
    let (socket, mut response) = opening.unwrap_or_else(|_| {
        let text = format!("the opening handshake took longer than {HANDSHAKE_TIMEOUT:?}");
        Err(Error::new(ErrorKind::Timeout, text))
    })?;
    if let Some(own) = response.extensions().get::<HandshakeTimes>().copied() {
        response.extensions_mut().insert(sum(connection.times(), own));
    }
    Ok((socket, response))
}

/// The times of a handshake whose last step was measured on its own.
fn sum(opening: HandshakeTimes, last: HandshakeTimes) -> HandshakeTimes {
    let mut times = HandshakeTimes::new(opening.upgraded() + last.upgraded());
    if let Some(resolved) = opening.resolved() {
        times = times.with_resolved(resolved);
    }
    if let Some(connected) = opening.connected() {
        times = times.with_connected(connected);
    }
    if let Some(secured) = opening.secured() {
        times = times.with_secured(secured);
    }
    times
}

/// Serves WebSockets over HTTP/3 until the server shuts down.
pub(crate) async fn serve<H: Handler<M>, M: 'static>(
    server: Server,
    socket: UdpSocket,
    handler: H,
) -> io::Result<ShutdownSummary> {
    Http3Server::new(server).serve(socket, handler).await
}
