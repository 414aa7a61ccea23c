//! The registry of a server's connections and their tasks, by which a shutdown closes them.

mod shutdown;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_proto::{CloseCode, CloseFrame};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, yield_now};
use tokio_util::sync::CancellationToken;

use crate::server::http2::Slot;
use crate::socket::Sender;

pub(crate) use shutdown::ShutdownSignal;

/// The number of connections that a shutdown closes before other tasks run.
const CLOSED_AT_ONCE: usize = 100;

/// The connections of a server.
///
/// A connection touches the registry only when its task begins, when its handshake is done, and when it ends.
/// (A `JoinSet` would take as much memory again per connection.)
#[derive(Default)]
pub(crate) struct Registry {
    /// The registered connections. Nothing foreign runs under the lock: no spawn, no waker, no call of a
    /// connection, and no drop of a task or connection.
    ///
    /// A runtime that is shutting down drops a future within the call that spawns or wakes its task. Each of
    /// these futures owns a [`Registration`], whose drop takes this lock.
    state: Mutex<RegistryState>,
    stopping: CancellationToken,
    /// Notified when the last connection has ended.
    all_ended: Notify,
}

#[derive(Default)]
struct RegistryState {
    connections: HashMap<u64, ConnectionEntry>,
    /// The number of connections so far, which numbers them.
    count: u64,
    /// The remaining connections were aborted, and no other may begin.
    aborted: bool,
    /// The ends of the connections that were open at the shutdown.
    shutdown: ShutdownSummary,
}

#[derive(Default)]
struct ConnectionEntry {
    /// The task, once it was spawned.
    task: Option<AbortHandle>,
    /// A sender of the connection, once the handshake is done.
    sender: Option<Sender>,
}

/// A summary of a server's shutdown: the number of connections by the way in which they ended.
///
/// ```no_run
/// # async fn example(server: bowline::Server, listener: tokio::net::TcpListener) -> std::io::Result<()> {
/// let shutdown = server.serve(listener, |_: bowline::WebSocket| async { Ok(()) }).await?;
/// println!("{} connections closed, {} were ended", shutdown.closed(), shutdown.ended());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownSummary {
    closed: usize,
    ended: usize,
}

impl ShutdownSummary {
    /// Returns the number of connections that were open at the signal and ended with a closing handshake.
    pub fn closed(&self) -> usize {
        self.closed
    }

    /// Returns the number of connections that were open at the signal and ended without a closing handshake:
    /// because of their peer, or at the deadline.
    pub fn ended(&self) -> usize {
        self.ended
    }
}

impl Registry {
    /// Spawns the task of a connection, unless the server has ended.
    pub(crate) fn spawn<F>(self: &Arc<Self>, task: impl FnOnce(Registration) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let number = {
            let mut state = self.state();
            if state.aborted {
                return;
            }
            state.count += 1;
            let number = state.count;
            state.connections.insert(number, ConnectionEntry::default());
            number
        };
        let task = tokio::spawn(task(Registration { registry: Arc::clone(self), number })).abort_handle();
        let mut state = self.state();
        if let Some(entry) = state.connections.get_mut(&number) {
            entry.task = Some(task);
        } else {
            // The connection has ended, or must end because the server has.
            drop(state);
            task.abort();
        }
    }

    /// Waits for `handshake`. Returns `None` if the server shuts down before it completes.
    pub(crate) async fn unless_stopping<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        self.stopping.run_until_cancelled(handshake).await
    }

    /// Waits until the server shuts down.
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// Ends the handshakes in progress, and starts the closing handshake on all connections.
    pub(crate) async fn stop(&self) {
        // This comes before the lock: a connection that opens meanwhile either is in the map, or sees the
        // token.
        self.stopping.cancel();
        let senders: Vec<Sender> =
            self.state().connections.values().filter_map(|entry| entry.sender.clone()).collect();
        for some in senders.chunks(CLOSED_AT_ONCE) {
            for sender in some {
                sender.start_close(&going_away());
            }
            yield_now().await;
        }
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn all_ended(&self) {
        // `notify_waiters` also reaches those that have not been polled yet.
        let ended = self.all_ended.notified();
        if !self.state().connections.is_empty() {
            ended.await;
        }
    }

    /// Aborts the remaining tasks, closes their transports, and returns the summary.
    pub(crate) fn abort(&self) -> ShutdownSummary {
        let mut state = self.state();
        state.aborted = true;
        let connections = std::mem::take(&mut state.connections);
        state.shutdown.ended += connections.values().filter(|entry| entry.sender.is_some()).count();
        let shutdown = state.shutdown;
        drop(state);
        for entry in connections.values() {
            entry.task.iter().for_each(AbortHandle::abort);
            entry.sender.iter().for_each(Sender::abort);
        }
        shutdown
    }

    fn state(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registration of a task, which its drop ends.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    number: u64,
}

impl Registration {
    /// Adds a sender of the connection, whose handshake is done.
    pub(crate) fn complete(self, sender: Sender) -> OpenRegistration {
        if let Some(entry) = self.registry.state().connections.get_mut(&self.number) {
            entry.sender = Some(sender.clone());
        }
        // This comes after the sender is in the map, so that no connection escapes `stop`. Closing one twice
        // does no harm.
        if self.registry.stopping.is_cancelled() {
            sender.start_close(&going_away());
        }
        OpenRegistration { registration: self, sender, closed: false, slot: None }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        let entry = state.connections.remove(&self.number);
        let is_empty = state.connections.is_empty();
        drop(state);
        drop(entry);
        if is_empty {
            self.registry.all_ended.notify_waiters();
        }
    }
}

/// The registration of a connection whose handler runs. Its drop closes the transport.
pub(crate) struct OpenRegistration {
    registration: Registration,
    pub(crate) sender: Sender,
    /// The connection ended with a closing handshake.
    pub(crate) closed: bool,
    /// The slot by which its HTTP/2 connection counts the WebSocket.
    pub(crate) slot: Option<Slot>,
}

impl Drop for OpenRegistration {
    fn drop(&mut self) {
        let registry = &self.registration.registry;
        let mut state = registry.state();
        let counts =
            state.connections.contains_key(&self.registration.number) && registry.stopping.is_cancelled();
        if counts && self.closed {
            state.shutdown.closed += 1;
        } else if counts {
            state.shutdown.ended += 1;
        }
        drop(state);
        // This does nothing if the connection has ended.
        self.sender.abort();
    }
}

fn going_away() -> CloseFrame {
    // RFC 6455 7.4.1: 1001 is the code of a server that goes down.
    CloseFrame::new(CloseCode::GOING_AWAY, "").expect("1001 may be sent")
}
