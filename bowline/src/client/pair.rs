//! Two connected WebSockets in memory, with the options of both builders.

use crate::client::connector::Connector;
use crate::error::Error;
use crate::server::{Acceptor, Rejection};
use crate::socket::{WebSocket, streams};

impl Connector {
    /// Creates two connected WebSockets in memory with the options of this connector and an acceptor: a
    /// client and a server. Available with the features `client` and `server`.
    ///
    /// [`pair`](crate::pair) does so with the default options.
    /// The two sides do the opening handshake for `ws://localhost/`. They thereby agree on a subprotocol and
    /// on compression as they would over a network.
    ///
    /// ```
    /// use bowline::{Acceptor, Connector, Limits};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// let connector = Connector::new().subprotocols(["chat.v2", "chat.v1"]);
    /// let acceptor = Acceptor::new().subprotocols(["chat.v1"]).limits(Limits::default().message_size(10));
    /// let (client, mut server) = connector.pair(&acceptor)?;
    /// assert_eq!(client.subprotocol(), Some("chat.v1"));
    /// client.send("more than 10 bytes").await?;
    /// assert!(server.recv().await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if an option of either side is
    ///   invalid.
    /// - Returns [`ErrorKind::Handshake`](crate::ErrorKind::Handshake) if the acceptor rejects the request.
    ///   The [`Rejection`] is the [source](std::error::Error::source).
    ///
    /// # Panics
    ///
    /// Panics if it is called outside of a tokio runtime, or in a runtime without a time driver.
    pub fn pair(&self, acceptor: &Acceptor) -> Result<(WebSocket, WebSocket), Error> {
        acceptor.validate()?;
        let (request, handshake) = self.request("ws://localhost/")?;
        let (response, accepted) = acceptor.respond(&request).map_err(Rejection::into_error)?;
        let (client, server) = streams();
        let verified = handshake.verify(&response)?;
        Ok((verified.finish(client, Vec::new()), accepted.finish(server, Vec::new())))
    }
}
