//! The loop that accepts connections, and the shutdown of the server.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::server::connection_task::{ServerOptions, ServerState, serve_connection};
use crate::server::handler::Handler;
use crate::server::registry::ShutdownSummary;

/// The pause after the operating system failed to accept a connection, as when the process has no file
/// descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that accepts connections. Dropping it ends them.
pub(crate) struct AcceptLoop<H> {
    state: Arc<ServerState<H>>,
}

impl<H> AcceptLoop<H> {
    pub(crate) fn new(options: ServerOptions, handler: H, local: Option<SocketAddr>) -> Self {
        let options = options.with_protocols();
        let state = ServerState { options, handler, local, registry: Arc::default() };
        Self { state: Arc::new(state) }
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
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    self.state.registry.spawn(|registration| {
                        let establish =
                            move |state: Arc<_>| ServerState::establish(state, registration, stream, peer);
                        serve_connection(Arc::clone(&self.state), Box::new(establish))
                    });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.state.report(error.into());
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes all connections. After `deadline`, closes the transports of those that remain.
    pub(crate) async fn shut_down(self, deadline: Duration) -> ShutdownSummary {
        let registry = &self.state.registry;
        let closing = async {
            registry.stop().await;
            registry.all_ended().await;
        };
        // `abort` finds out for each connection if it has ended in time.
        let _ = timeout(deadline, closing).await;
        registry.abort()
    }
}

impl<H> Drop for AcceptLoop<H> {
    fn drop(&mut self) {
        self.state.registry.abort();
    }
}

/// Returns `true` for errors that concern only the connection that was about to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
