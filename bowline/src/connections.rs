//! The open connections of a server.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_proto::{CloseCode, CloseFrame};
use tokio_util::sync::CancellationToken;

use crate::sender::Sender;

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
    opened: u64,
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
        OpenConnection { connections: Arc::clone(self), number, sender }
    }

    /// Ends the handshakes under way, and sends a Close frame on all connections.
    pub(crate) fn stop(&self) {
        let open = self.open();
        self.stopping.cancel();
        let senders: Vec<Sender> = open.senders.values().cloned().collect();
        drop(open);
        for sender in senders {
            sender.begin_close(&going_away());
        }
    }

    /// Ends the transports of all connections, and says how many there were.
    pub(crate) fn abort(&self) -> usize {
        let senders: Vec<Sender> = self.open().senders.values().cloned().collect();
        senders.iter().for_each(Sender::abort);
        senders.len()
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
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.open().senders.remove(&self.number);
        // Nothing happens to a connection that has ended already.
        self.sender.abort();
    }
}

fn going_away() -> CloseFrame {
    // RFC 6455 7.4.1: 1001 is for a server that goes down.
    CloseFrame::new(CloseCode::GOING_AWAY, "").expect("1001 may be sent")
}
