//! The loop that accepts connections, until the server shuts down.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

use crate::server::connection_task::{ServerOptions, ServerState, serve_connection};
use crate::server::handler::Handler;
use crate::server::listener::Listener;
use crate::server::registry::{Registry, ShutdownSummary};
use crate::server::server_error::ServerError;
use crate::transport::IoStream;

/// The pause after the operating system failed to accept a connection, as when the process has no file
/// descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One call of a server's, with the connections that are served by it. Dropping it ends them.
pub(crate) struct ServerRun<H> {
    state: Arc<ServerState<H>>,
}

impl<H> ServerRun<H> {
    pub(crate) fn new(options: Arc<ServerOptions>, handler: H) -> Self {
        let registry = Arc::new(Registry::new(options.shutdown.clone()));
        Self { state: Arc::new(ServerState { options, handler, registry }) }
    }

    /// Serves the connections of a listener, until the server has shut down.
    pub(crate) async fn serve<M: 'static, L: Listener>(self, listener: L) -> ShutdownSummary
    where
        H: Handler<M>,
    {
        // This drops the listener when the signal completes.
        self.unless_signalled(self.accept_from(listener)).await;
        self.state.registry.shut_down().await
    }

    /// Serves one connection, until it has ended.
    pub(crate) async fn serve_one<M: 'static, S: IoStream>(self, stream: S, peer: Option<SocketAddr>)
    where
        H: Handler<M>,
    {
        let serving = async {
            self.begin(stream, peer);
            self.state.registry.all_ended().await;
        };
        if self.unless_signalled(serving).await.is_none() {
            self.state.registry.shut_down().await;
        }
    }

    /// Runs `work` until the signal to shut down. Returns `None` if that was first.
    async fn unless_signalled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut signal, mut work) = (pin!(self.state.registry.signalled()), pin!(work));
        poll_fn(|cx| match signal.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => work.as_mut().poll(cx).map(Some),
        })
        .await
    }

    async fn accept_from<M: 'static, L: Listener>(&self, mut listener: L) -> Infallible
    where
        H: Handler<M>,
    {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.begin(stream, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.state.report(|| ServerError::of_accepting(error));
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Spawns the task of a connection.
    fn begin<M: 'static, S: IoStream>(&self, stream: S, peer: Option<SocketAddr>)
    where
        H: Handler<M>,
    {
        self.state.registry.spawn(|registration| {
            let establish = move |state: Arc<_>| ServerState::establish(state, registration, stream, peer);
            serve_connection(Arc::clone(&self.state), Box::new(establish))
        });
    }
}

impl<H> Drop for ServerRun<H> {
    fn drop(&mut self) {
        self.state.registry.abort();
    }
}

/// Returns `true` for errors that concern only the connection that was about to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
