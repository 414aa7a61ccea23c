//! The tasks of a server: accepting, one per connection, and the end of all.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bowline_proto::CloseCode;
use http::request::Parts;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::acceptor::Acceptor;
use crate::catch_panic::CatchPanic;
use crate::connections::{Connections, OpenConnection, Place, Shutdown};
use crate::deadline::Deadline;
use crate::handler::Handler;
use crate::server_exchange::Check;
use crate::transport::Addresses;
use crate::websocket::WebSocket;

/// How long accepting pauses after the operating system refused it, as when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the builder of a server decides.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) acceptor: Acceptor,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) check: Option<Check>,
    pub(crate) on_error: Option<Box<dyn OnError>>,
}

/// What the closure that hears of errors has to be.
pub(crate) trait OnError: Fn(Box<dyn StdError + Send + Sync>) + Send + Sync {}

impl<F: Fn(Box<dyn StdError + Send + Sync>) + Send + Sync> OnError for F {}

/// A server at work.
pub(crate) struct Service<H> {
    shared: Arc<Shared<H>>,
}

/// What all connections share.
struct Shared<H> {
    options: Options,
    handler: H,
    connections: Arc<Connections>,
}

impl<H> Service<H> {
    pub(crate) fn new(options: Options, handler: H) -> Self {
        let shared = Shared { options, handler, connections: Arc::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Accepts connections until `signal` is ready.
    pub(crate) async fn accept_until<M: 'static>(
        &self,
        mut signal: Pin<Box<dyn Future<Output = ()> + Send>>,
        listener: TcpListener,
    ) where
        H: Handler<M>,
    {
        let mut accepting = pin!(self.accept(listener));
        poll_fn(|cx| match accepting.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => signal.as_mut().poll(cx),
        })
        .await;
    }

    async fn accept<M: 'static>(&self, listener: TcpListener) -> Infallible
    where
        H: Handler<M>,
    {
        // Unless it listens on all addresses, this is what each connection would say.
        let local = listener.local_addr().ok().filter(|address| !address.ip().is_unspecified());
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let local = local.or_else(|| stream.local_addr().ok());
                    let addresses = Addresses { local, peer: Some(peer) };
                    let shared = &self.shared;
                    shared.connections.spawn(|place| {
                        // In a box, so that the memory is free again when the handler runs.
                        let opening = Box::pin(open(Arc::clone(shared), place, stream, addresses));
                        serve_connection(Arc::clone(shared), opening)
                    });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.shared.report(error.into());
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes all connections, and ends what is left of them after `deadline`.
    pub(crate) async fn shut_down(self, deadline: Duration) -> Shutdown {
        let connections = &self.shared.connections;
        let closing = async {
            connections.stop().await;
            connections.ended().await;
        };
        // What the deadline means for each connection is found out below.
        let _ = timeout(deadline, closing).await;
        connections.abort()
    }
}

impl<H> Drop for Service<H> {
    fn drop(&mut self) {
        self.shared.connections.abort();
    }
}

impl<H> Shared<H> {
    fn report(&self, error: Box<dyn StdError + Send + Sync>) {
        if let Some(on_error) = &self.options.on_error {
            on_error(error);
        }
    }
}

/// Errors that say something about the connection that was to be accepted, not about accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection whose handshake is done.
struct Opened {
    socket: WebSocket,
    head: Parts,
    connection: OpenConnection,
}

/// Everything before a connection is open; `None` if that fails.
async fn open<H>(
    shared: Arc<Shared<H>>,
    place: Place,
    stream: TcpStream,
    addresses: Addresses,
) -> Option<Opened> {
    let Options { acceptor, check, .. } = &shared.options;
    let deadline = Deadline::after(acceptor.handshake_timeout());
    // In a box of its own, because combinators keep what they are given twice.
    let handshake = Box::pin(async {
        #[cfg(feature = "tls")]
        if let Some(config) = &shared.options.tls {
            // In a box, as it is much larger than what follows.
            let handshake = async {
                // It fails only on a socket that is broken, which the next read says better.
                let _ = stream.set_nodelay(true);
                let accepting = crate::tls::accept(Arc::clone(config), stream);
                let stream = deadline.bound("doing the TLS handshake", accepting).await?;
                acceptor.shake_hands(stream, addresses, check.as_ref(), deadline).await
            };
            return Box::pin(handshake).await;
        }
        acceptor.shake_hands(stream, addresses, check.as_ref(), deadline).await
    });
    // `None` if the server goes down meanwhile.
    match shared.connections.unless_stopping(handshake).await? {
        Ok((mut socket, head)) => {
            let connection = place.open(socket.supervise());
            Some(Opened { socket, head, connection })
        }
        Err(error) => {
            shared.report(error.into());
            None
        }
    }
}

/// The task of a connection.
async fn serve_connection<H: Handler<M>, M>(
    shared: Arc<Shared<H>>,
    opening: Pin<Box<impl Future<Output = Option<Opened>>>>,
) {
    let Some(Opened { socket, head, mut connection }) = opening.await else { return };
    let code = match CatchPanic::call(|| shared.handler.handle(head, socket)).await {
        Ok(()) => CloseCode::NORMAL,
        Err(error) => {
            shared.report(error);
            CloseCode::INTERNAL_ERROR
        }
    };
    drop(shared);
    connection.closed = connection.sender.close(code, "").await.is_ok();
}
