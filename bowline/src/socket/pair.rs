//! Two connected WebSockets in memory.

use bowline_proto::Role;

use crate::connection::parts::{Config, ConnectionParts};
use crate::handshake::negotiated::Negotiated;
use crate::socket::websocket::WebSocket;
use crate::transport::Transport;

/// How many bytes may be under way in each direction.
const CAPACITY: usize = 64 * 1024;

/// Two connected WebSockets in memory, a client's and a server's: for tests of code that uses one.
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
/// Outside of a tokio runtime, or in one without its time driver.
pub fn pair() -> (WebSocket, WebSocket) {
    let (client, server) = tokio::io::duplex(CAPACITY);
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
