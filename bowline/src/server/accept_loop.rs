//! The loop that accepts connections, until the server shuts down.

mod listener;
mod requests;

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time::sleep;

use crate::handshake::deadline::FAR;
use crate::server::connection_task::{ServerOptions, ServerState, serve_connection};
use crate::server::handler::Handler;
use crate::server::registry::{Load, Permit, Registry, ShutdownSummary};
use crate::server::rejection::RejectionReason;
use crate::server::server_error::ServerError;
use crate::transport::IoStream;

pub use listener::Listener;
pub use requests::{RequestConnection, Requests};

/// The pause after the operating system failed to accept a connection, as when the process has no file
/// descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One call of a server's, with the connections that are served by it. Dropping it ends them.
pub(crate) struct ServerRun<H> {
    state: Arc<ServerState<H>>,
}

impl<H> ServerRun<H> {
    pub(crate) fn new(options: Arc<ServerOptions>, load: Arc<Load>, handler: H) -> Self {
        let registry = Arc::new(Registry::new(load));
        Self { state: Arc::new(ServerState { options, handler, registry }) }
    }

    /// Serves the connections of a listener, until the server has shut down.
    pub(crate) async fn serve<M: 'static, L: Listener>(self, listener: L) -> ShutdownSummary
    where
        H: Handler<M>,
    {
        // This drops the listener when the signal completes.
        self.unless_signalled(self.accept_from(listener)).await;
        self.shut_down().await
    }

    /// Serves one connection, until it has ended.
    pub(crate) async fn serve_one<M: 'static, S: IoStream>(self, stream: S, peer: Option<SocketAddr>)
    where
        H: Handler<M>,
    {
        // The boxes keep the future small while it waits for the end of the connection.
        if Box::pin(self.unless_signalled(self.begin_in_time(stream, peer))).await.is_none() {
            self.state.registry.load.counters.rejected(RejectionReason::Shutdown);
            return;
        }
        let registry = &self.state.registry;
        if self.unless_signalled(registry.all_ended()).await.is_none() {
            Box::pin(self.shut_down()).await;
        }
    }

    /// Waits until the application asks for the shutdown.
    async fn signalled(&self) {
        match &self.state.options.shutdown {
            // The box keeps the futures of servers without a shutdown small.
            Some(shutdown) => Box::pin(shutdown.signalled()).await,
            None => pending().await,
        }
    }

    /// Closes all connections in the way that the application has asked for.
    async fn shut_down(&self) -> ShutdownSummary {
        match &self.state.options.shutdown {
            Some(shutdown) => self.state.registry.shut_down(&shutdown.plan).await,
            None => self.state.registry.abort(),
        }
    }

    /// Waits until the connection may begin, and spawns its task, unless the connection is refused.
    async fn begin_in_time<M: 'static, S: IoStream>(&self, stream: S, peer: Option<SocketAddr>)
    where
        H: Handler<M>,
    {
        let ServerOptions { load: limits, acceptor, .. } = &*self.state.options;
        let patience = acceptor.terms().config.limits.handshake_timeout;
        let waited = self.state.registry.load.next_handshake(limits, patience).await;
        match waited.and_then(|()| self.state.admit(peer)) {
            Ok(permit) => self.begin(stream, peer, permit),
            Err(reason) => {
                // The report is the application's code, so the connection is closed before.
                drop(stream);
                self.state.refuse(reason, peer, None);
            }
        }
    }

    /// Runs `work` until the signal to shut down. Returns `None` if that was first.
    async fn unless_signalled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut signal, mut work) = (pin!(self.signalled()), pin!(work));
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
        let ServerOptions { load: limits, .. } = &*self.state.options;
        loop {
            // Connections that come before their time wait in the operating system's queue.
            let _ = self.state.registry.load.next_handshake(limits, FAR).await;
            let (stream, peer, permit) = self.accept_admitted(&mut listener).await;
            self.begin(stream, peer, permit);
        }
    }

    /// Accepts the next connection that is not refused at once.
    async fn accept_admitted<L: Listener>(
        &self,
        listener: &mut L,
    ) -> (L::Stream, Option<SocketAddr>, Option<Permit>) {
        loop {
            // The application's listener may always be ready.
            consume_budget().await;
            match listener.accept().await {
                Ok((stream, peer)) => match self.state.admit(peer) {
                    Ok(permit) => return (stream, peer, permit),
                    Err(reason) => {
                        // The report is the application's code, so the connection is closed before.
                        drop(stream);
                        self.state.refuse(reason, peer, None);
                    }
                },
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.state.registry.load.counters.accept_failed();
                    self.state.report(|| ServerError::of_accepting(error));
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Spawns the task of a connection.
    fn begin<M: 'static, S: IoStream>(&self, stream: S, peer: Option<SocketAddr>, permit: Option<Permit>)
    where
        H: Handler<M>,
    {
        self.state.registry.spawn(permit, |registration| {
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
