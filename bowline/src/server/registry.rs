//! The registry of a server's connections and their tasks, by which a shutdown closes them.
//!
//! Each call of [`Server::serve`](crate::Server::serve) has a registry. An application on another HTTP server
//! has one in its [`Connections`].

pub(crate) mod connections;
mod load;
mod shutdown;
mod stats;
mod usage;

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::{Future, pending, poll_fn};
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::server::catch_panic::catch;
use crate::server::rejection::RejectionReason;
use crate::server::server_error::{RequestLine, ServerError};
use crate::socket::Sender;

pub use connections::Connections;
pub(crate) use load::{LentPermit, Load, LoadLimits, Permit};
pub use shutdown::ShutdownOptions;
pub(crate) use shutdown::{ClosingPlan, Shutdown};
pub use stats::ServerStats;
pub(crate) use usage::{Slot, Slots, Usage};

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
    pub(crate) load: Arc<Load>,
    stopping: CancellationToken,
    /// Notified when the last connection has ended.
    all_ended: Notify,
}

#[derive(Default)]
struct RegistryState {
    connections: HashMap<u64, ConnectionEntry, NumberHash>,
    /// The permits of the connections that have one, in a map of their own: without limits, there are none.
    permits: HashMap<u64, Permit, NumberHash>,
    /// The requests of the open connections, if the application is told of errors. They are kept apart from
    /// the tasks, which tokio aligns to 128 bytes: a few more bytes may cost a hundred in every connection.
    requests: HashMap<u64, RequestLine, NumberHash>,
    /// The number of connections so far, which numbers them.
    count: u64,
    stage: RegistryStage,
    /// The ends of the connections that were open at the shutdown.
    shutdown: ShutdownSummary,
}

/// The hash of the number of a connection.
///
/// Numbers are consecutive, and no peer chooses them. Measured: with the hash of std, opening and closing a
/// connection takes 1,000 instructions more.
#[derive(Default)]
struct NumberHash;

impl BuildHasher for NumberHash {
    type Hasher = NumberHasher;

    fn build_hasher(&self) -> NumberHasher {
        NumberHasher(0)
    }
}

struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    /// Spreads the number over all bits by Fibonacci hashing: a table uses the highest and the lowest ones.
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The progress of a registry towards its end.
///
/// ```text
/// Open --shut_down--> Closing --all have ended, or the deadline--> Ended
///   |                                                                ^
///   '-----------------------the server is dropped--------------------'
/// ```
#[derive(Default)]
enum RegistryStage {
    #[default]
    Open,
    /// Connections that open now are closed at once.
    Closing(Arc<ClosingPlan>),
    /// The remaining connections were aborted, and no other may begin.
    Ended,
}

#[derive(Default)]
struct ConnectionEntry {
    /// The task, once it was spawned.
    task: Option<AbortHandle>,
    /// A sender of the connection, once the handshake is done.
    sender: Option<Sender>,
}

/// A summary of a shutdown, of a [`Server`](crate::Server) or of [`Connections`]: the number of connections
/// by the way in which they ended.
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
    pub(crate) fn new(load: Arc<Load>) -> Self {
        Self { load, ..Self::default() }
    }

    /// Closes all connections. After the deadline, closes the transports of those that remain.
    pub(crate) async fn shut_down(&self, plan: &Arc<ClosingPlan>) -> ShutdownSummary {
        // The last connection may end on its own, long before the last one would be closed.
        let closing = async {
            self.stop(plan).await;
            pending::<Infallible>().await
        };
        let (mut closing, mut ended) = (pin!(closing), pin!(self.all_ended()));
        let closed = poll_fn(|cx| match closing.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => ended.as_mut().poll(cx),
        });
        // `abort` finds out for each connection if it has ended in time.
        let _ = timeout(plan.options.deadline, closed).await;
        self.abort()
    }

    /// Spawns the task of a connection, unless the server has ended.
    pub(crate) fn spawn<F>(self: &Arc<Self>, permit: Option<Permit>, task: impl FnOnce(Registration) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let number = {
            let mut state = self.state();
            if matches!(state.stage, RegistryStage::Ended) {
                return;
            }
            let number = state.register();
            state.permits.extend(permit.map(|permit| (number, permit)));
            number
        };
        let place = Place { registry: Arc::clone(self), number };
        let task = tokio::spawn(task(Registration { place: place.clone() }));
        place.set_task(task.abort_handle());
    }

    /// Waits for `handshake`. Returns `None` if the server shuts down before it completes.
    pub(crate) async fn unless_stopping<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        self.stopping.run_until_cancelled(handshake).await
    }

    /// Waits until the server shuts down.
    pub(crate) async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// Ends the handshakes in progress, and starts the closing handshake on each connection in its time.
    async fn stop(&self, plan: &Arc<ClosingPlan>) {
        // This comes before the lock, so that each connection that was in the map is counted when it ends.
        self.stopping.cancel();
        // Their numbers, not their senders, so that the memory of those that end meanwhile is free. A
        // connection that opens meanwhile either is in the map, or sees the stage.
        let mut schedule = {
            let mut state = self.state();
            if !matches!(state.stage, RegistryStage::Ended) {
                state.stage = RegistryStage::Closing(Arc::clone(plan));
            }
            let open = state.connections.iter().filter(|(_, entry)| entry.sender.is_some());
            let mut numbers: Vec<_> = open.map(|(number, _)| *number).collect();
            // The oldest connection draws first, and is closed first: nobody loses one that was just opened.
            numbers.sort_unstable();
            plan.schedule(numbers)
        };
        let mut closed = 0;
        while let Some(number) = schedule.next().await {
            let sender = self.state().connections.get(&number).and_then(|entry| entry.sender.clone());
            if let Some(sender) = sender {
                // A stream of the application's that panics must not keep the others open.
                let _ = catch(|| sender.start_close(plan.frame()));
            }
            closed += 1;
            if closed % CLOSED_AT_ONCE == 0 {
                yield_now().await;
            }
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
        state.stage = RegistryStage::Ended;
        let connections = std::mem::take(&mut state.connections);
        let permits = std::mem::take(&mut state.permits);
        state.shutdown.ended += connections.values().filter(|entry| entry.sender.is_some()).count();
        let shutdown = state.shutdown;
        drop(state);
        drop(permits);
        for entry in connections.values() {
            entry.task.iter().for_each(AbortHandle::abort);
            let _ = catch(|| entry.sender.iter().for_each(Sender::abort));
        }
        // Another call may wait for tasks that can't be aborted.
        self.all_ended.notify_waiters();
        shutdown
    }

    fn state(&self) -> MutexGuard<'_, RegistryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryState {
    /// Adds an entry, unless the connections are being closed. Returns its number.
    fn register_if_open(&mut self) -> Option<u64> {
        matches!(self.stage, RegistryStage::Open).then(|| self.register())
    }

    /// Adds an entry, and returns its number.
    fn register(&mut self) -> u64 {
        self.count += 1;
        self.connections.insert(self.count, ConnectionEntry::default());
        self.count
    }
}

/// The registration of a connection, which its drop ends.
pub(crate) struct Registration {
    place: Place,
}

/// The place of a connection in the registry. Without its [`Registration`], the place is empty.
#[derive(Clone)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    number: u64,
}

impl Place {
    /// Takes a permit for the connection, unless it has one. Returns the reason if none is free.
    pub(crate) fn admit(&self, limits: &LoadLimits, peer: Option<SocketAddr>) -> Result<(), RejectionReason> {
        if self.registry.state().permits.contains_key(&self.number) {
            return Ok(());
        }
        let Some(permit) = self.registry.load.admit(limits, peer)? else { return Ok(()) };
        let mut state = self.registry.state();
        if state.connections.contains_key(&self.number) {
            state.permits.insert(self.number, permit);
        }
        Ok(())
    }

    /// Adds the task of the connection, which an abort ends.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        let mut state = self.registry.state();
        if let Some(entry) = state.connections.get_mut(&self.number) {
            entry.task = Some(task);
        } else {
            // The connection has ended, or must end because the server has.
            drop(state);
            task.abort();
        }
    }

    /// Takes the permit away from the connection.
    pub(crate) fn take_permit(&self) -> Option<Permit> {
        self.registry.state().permits.remove(&self.number)
    }
}

impl Registration {
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Adds a sender of the connection, whose handshake is done.
    pub(crate) fn complete(self, sender: Sender, request: Option<RequestLine>) -> OpenRegistration {
        let mut state = self.place.registry.state();
        let plan = match &state.stage {
            RegistryStage::Closing(plan) => Some(Arc::clone(plan)),
            RegistryStage::Open | RegistryStage::Ended => None,
        };
        let entry = state.connections.get_mut(&self.place.number);
        let is_aborted = entry.is_none();
        if let Some(entry) = entry {
            entry.sender = Some(sender.clone());
            state.requests.extend(request.map(|request| (self.place.number, request)));
        }
        drop(state);
        // The sender is in the map by now, so no connection escapes `stop`. Closing one twice does no harm.
        if is_aborted {
            sender.abort();
        } else if let Some(plan) = plan {
            sender.start_close(plan.frame());
        }
        self.place.registry.load.counters.accepted();
        OpenRegistration { registration: self, sender }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.place.registry.state();
        let entry = state.connections.remove(&self.place.number);
        let permit = state.permits.remove(&self.place.number);
        state.requests.remove(&self.place.number);
        let is_empty = state.connections.is_empty();
        drop(state);
        drop((entry, permit));
        if is_empty {
            self.place.registry.all_ended.notify_waiters();
        }
    }
}

/// The registration of a connection that is open. Its drop closes the transport.
pub(crate) struct OpenRegistration {
    registration: Registration,
    pub(crate) sender: Sender,
}

impl OpenRegistration {
    /// Returns an error of the handler, with the request of its connection.
    pub(crate) fn error(&self, error: Box<dyn StdError + Send + Sync>) -> ServerError {
        let Place { registry, number } = &self.registration.place;
        let request = registry.state().requests.remove(number);
        ServerError::of_handler(&self.sender, request, error)
    }
}

impl Drop for OpenRegistration {
    fn drop(&mut self) {
        let registry = &self.registration.place.registry;
        registry.load.counters.ended();
        if registry.stopping.is_cancelled() {
            registry.load.counters.shut_down();
        }
        let closed = self.sender.has_closed();
        let mut state = registry.state();
        let counts = state.connections.contains_key(&self.registration.place.number)
            && registry.stopping.is_cancelled();
        if counts && closed {
            state.shutdown.closed += 1;
        } else if counts {
            state.shutdown.ended += 1;
        }
        drop(state);
        // This does nothing if the connection has ended.
        self.sender.abort();
    }
}
