//! The open connections of a server.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_proto::{CloseCode, CloseFrame};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::sender::Sender;

/// How many connections are closed before other tasks have their turn.
const CLOSED_AT_ONCE: usize = 100;

/// The open connections of a server, to close them when it goes down.
///
/// It is touched only when one opens or ends.
#[derive(Default)]
pub(crate) struct Connections {
    open: Mutex<Open>,
    stopping: CancellationToken,
}

#[derive(Default)]
struct Open {
    senders: HashMap<u64, Sender>,
    /// How many there were, which numbers them.
    opened: u64,
    /// What became of those that were open when the server went down.
    shutdown: Shutdown,
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

impl Connections {
    /// Does `handshake`, unless the server goes down before it is done.
    pub(crate) async fn unless_stopping<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        self.stopping.run_until_cancelled(handshake).await
    }

    /// Adds a connection, until the result is dropped.
    pub(crate) fn add(self: &Arc<Self>, sender: Sender) -> OpenConnection {
        let mut open = self.open();
        open.opened += 1;
        let number = open.opened;
        open.senders.insert(number, sender.clone());
        // Under the lock, so that no connection falls between this and `stop`.
        if self.stopping.is_cancelled() {
            sender.begin_close(&going_away());
        }
        drop(open);
        OpenConnection { connections: Arc::clone(self), number, sender, closed: false }
    }

    /// Ends the handshakes under way, and sends a Close frame on all connections.
    pub(crate) async fn stop(&self) {
        let senders: Vec<Sender> = {
            let open = self.open();
            self.stopping.cancel();
            open.senders.values().cloned().collect()
        };
        for some in senders.chunks(CLOSED_AT_ONCE) {
            for sender in some {
                sender.begin_close(&going_away());
            }
            yield_now().await;
        }
    }

    /// Ends the transports of the connections that are left, and says what became of all.
    pub(crate) fn abort(&self) -> Shutdown {
        let mut open = self.open();
        let senders = std::mem::take(&mut open.senders);
        open.shutdown.ended += senders.len();
        let shutdown = open.shutdown;
        drop(open);
        senders.values().for_each(Sender::abort);
        shutdown
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection whose handler runs. When this is dropped, nothing is left of the connection.
pub(crate) struct OpenConnection {
    connections: Arc<Connections>,
    number: u64,
    pub(crate) sender: Sender,
    /// It ended with a closing handshake.
    pub(crate) closed: bool,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        let counts = open.senders.remove(&self.number).is_some() && self.connections.stopping.is_cancelled();
        if counts && self.closed {
            open.shutdown.closed += 1;
        } else if counts {
            open.shutdown.ended += 1;
        }
        drop(open);
        // Nothing happens to a connection that has ended already.
        self.sender.abort();
    }
}

fn going_away() -> CloseFrame {
    // RFC 6455 7.4.1: 1001 is for a server that goes down.
    CloseFrame::new(CloseCode::GOING_AWAY, "").expect("1001 may be sent")
}
