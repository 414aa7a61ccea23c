//! Two connected WebSockets in memory, for tests.

use bowline_proto::Role;
use tokio::io::{DuplexStream, duplex};

use crate::connection::parts::{Config, ConnectionParts};
use crate::handshake::negotiated::Negotiated;
use crate::socket::websocket::WebSocket;
use crate::transport::Transport;

/// The number of bytes that may be in flight in each direction.
const CAPACITY: usize = 64 * 1024;

/// Creates two connected WebSockets in memory: a client and a server.
///
/// The pair is for tests of code that uses a [`WebSocket`]. Both ends have the default
/// [`Limits`](crate::Limits), and up to 64 KiB are in flight in each direction. `Connector::pair` creates a
/// pair with other options.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline::Error> {
/// let (client, mut server) = bowline::pair();
/// client.send("hello").await?;
/// assert_eq!(server.recv().await?, Some("hello".into()));
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// Panics if it is called outside of a tokio runtime, or in a runtime without a time driver.
pub fn pair() -> (WebSocket, WebSocket) {
    let (client, server) = streams();
    let config = Config::default();
    let open = |stream, role| {
        WebSocket::open(ConnectionParts {
            transport: Transport::new(stream),
            role,
            leftover: &[],
            config: &config,
            negotiated: Negotiated::default(),
        })
    };
    (open(client, Role::Client), open(server, Role::Server))
}

/// Creates the streams of a pair.
pub(crate) fn streams() -> (DuplexStream, DuplexStream) {
    duplex(CAPACITY)
}
