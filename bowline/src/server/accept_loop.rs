//! The loop that accepts connections, and the shutdown of the server.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::server::connection_task::{ServerOptions, ServerState, serve_connection};
use crate::server::handler::Handler;
use crate::server::listener::Listener;
use crate::server::registry::ShutdownSummary;
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
        Self { state: Arc::new(ServerState { options, handler, registry: Arc::default() }) }
    }

    /// Serves the connections of a listener, until the server has shut down.
    pub(crate) async fn serve<M: 'static, L: Listener>(self, listener: L) -> ShutdownSummary
    where
        H: Handler<M>,
    {
        // This drops the listener when the signal completes.
        self.unless_shut_down(self.accept_from(listener)).await;
        self.shut_down().await
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
        if self.unless_shut_down(serving).await.is_none() {
            self.shut_down().await;
        }
    }

    /// Runs `work` until the signal to shut down. Returns `None` if that was first.
    async fn unless_shut_down<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let signal = async {
            match &self.state.options.signal {
                Some(signal) => signal.completed().await,
                None => pending().await,
            }
        };
        let (mut signal, mut work) = (pin!(signal), pin!(work));
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
                    self.state.report(error.into());
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

    /// Closes all connections. After the deadline, closes the transports of those that remain.
    async fn shut_down(self) -> ShutdownSummary {
        let registry = &self.state.registry;
        let closing = async {
            registry.stop().await;
            registry.all_ended().await;
        };
        // `abort` finds out for each connection if it has ended in time.
        let _ = timeout(self.state.options.deadline, closing).await;
        registry.abort()
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
