//! The tasks and open connections of a server.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_proto::{CloseCode, CloseFrame};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, yield_now};
use tokio_util::sync::CancellationToken;

use crate::server::http2::Slot;
use crate::socket::Sender;

/// How many connections are closed before other tasks have their turn.
const CLOSED_AT_ONCE: usize = 100;

/// The connections of a server, to close them when it goes down.
///
/// It is touched only when one begins, opens or ends. (A `JoinSet` would take as much memory again for each.)
#[derive(Default)]
pub(crate) struct Registry {
    /// Nothing foreign runs while it is locked: no spawn, no waker, no call of a connection, no drop of a task or of a
    /// connection. A runtime that is shutting down drops a future within the call that spawns or wakes its task, and each of
    /// these futures has a [`Registration`], which locks this.
    state: Mutex<RegistryState>,
    stopping: CancellationToken,
    /// The last has ended.
    all_ended: Notify,
}

#[derive(Default)]
struct RegistryState {
    connections: HashMap<u64, ConnectionEntry>,
    /// How many there were, which numbers them.
    count: u64,
    /// Those that were left have been ended, and no other may begin.
    aborted: bool,
    /// What became of those that were open when the server went down.
    shutdown: Shutdown,
}

#[derive(Default)]
struct ConnectionEntry {
    /// Once it has been spawned.
    task: Option<AbortHandle>,
    /// Once the handshake is done.
    sender: Option<Sender>,
}

/// How the connections of a server ended that was shut down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    closed: usize,
    ended: usize,
}

impl Shutdown {
    /// How many connections were open at the signal, and ended with a closing handshake.
    pub fn closed(&self) -> usize {
        self.closed
    }

    /// How many connections were open at the signal, and ended without one: because of their peer, or at the deadline.
    pub fn ended(&self) -> usize {
        self.ended
    }
}

impl Registry {
    /// Starts the task of a connection, unless the server has ended.
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
            // It has ended already, or is to, as the server has.
            drop(state);
            task.abort();
        }
    }

    /// Does `handshake`, unless the server goes down before it is done.
    pub(crate) async fn unless_stopping<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        self.stopping.run_until_cancelled(handshake).await
    }

    /// Waits until the server goes down.
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// Ends the handshakes under way, and sends a Close frame on all connections.
    pub(crate) async fn stop(&self) {
        // Before the list is read: a connection that opens meanwhile is either on it, or sees this.
        self.stopping.cancel();
        let senders: Vec<Sender> =
            self.state().connections.values().filter_map(|entry| entry.sender.clone()).collect();
        for some in senders.chunks(CLOSED_AT_ONCE) {
            for sender in some {
                sender.begin_close(&going_away());
            }
            yield_now().await;
        }
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn all_ended(&self) {
        let ended = self.all_ended.notified();
        if !self.state().connections.is_empty() {
            ended.await;
        }
    }

    /// Ends the tasks that are left, and their transports, and says what became of all.
    pub(crate) fn abort(&self) -> Shutdown {
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

/// The place of a task on the list.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    number: u64,
}

impl Registration {
    /// The handshake is done.
    pub(crate) fn complete(self, sender: Sender) -> OpenRegistration {
        if let Some(entry) = self.registry.state().connections.get_mut(&self.number) {
            entry.sender = Some(sender.clone());
        }
        // After it is on the list, so that no connection falls between this and `stop`. To close one twice is to close it.
        if self.registry.stopping.is_cancelled() {
            sender.begin_close(&going_away());
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

/// A connection whose handler runs. When this is dropped, nothing is left of the connection.
pub(crate) struct OpenRegistration {
    registration: Registration,
    pub(crate) sender: Sender,
    /// It ended with a closing handshake.
    pub(crate) closed: bool,
    /// What its HTTP/2 connection counts it by.
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
        // Nothing happens to a connection that has ended already.
        self.sender.abort();
    }
}

fn going_away() -> CloseFrame {
    // RFC 6455 7.4.1: 1001 is for a server that goes down.
    CloseFrame::new(CloseCode::GOING_AWAY, "").expect("1001 may be sent")
}
