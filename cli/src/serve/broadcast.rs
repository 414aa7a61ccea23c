//! `--broadcast`: each message goes to all clients.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bowline::{CloseCode, Message, Prepared, Sender, TrySendError, WebSocket};

use super::log::{ConnectionLog, HandlerError};

/// The clients that are connected.
#[derive(Default)]
pub(crate) struct Members(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    senders: HashMap<u64, Sender>,
}

/// A place among the members, which is free again when it is dropped.
struct Place<'a> {
    members: &'a Members,
    number: u64,
}

impl Members {
    /// Sends each message of the client to all, until the connection ends.
    pub(crate) async fn take_part(
        &self,
        mut socket: WebSocket,
        log: &ConnectionLog,
    ) -> Result<(), HandlerError> {
        let _place = self.join(socket.sender());
        while let Some(message) = socket.recv().await? {
            log.received(&message);
            self.send_to_all(message);
        }
        Ok(())
    }

    fn join(&self, sender: Sender) -> Place<'_> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.next += 1;
        let number = table.next;
        table.senders.insert(number, sender);
        Place { members: self, number }
    }

    /// Sends a message to all. A client that does not keep up is closed with 1013: it would otherwise cost
    /// memory without end, or the time of the others.
    fn send_to_all(&self, message: Message) {
        let prepared = Prepared::new(message);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.senders.retain(|_, sender| match sender.try_send(&prepared) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                // The client may be gone already, which is as good.
                let _ = sender.begin_close(CloseCode::TRY_AGAIN_LATER, "too slow");
                false
            }
            Err(TrySendError::Closed(_)) => false,
        });
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut table = self.members.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.senders.remove(&self.number);
    }
}
