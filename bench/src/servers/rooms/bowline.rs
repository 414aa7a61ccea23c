//! bowline's rooms: a list of senders, and prepared messages for all of them.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bowline::{Prepared, Sender, Server, TrySendError, WebSocket};
use tokio::net::TcpListener;

use super::requested;
use crate::servers::library::Behavior;

/// The connections of the room.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<Sender>>>);

pub async fn serve(behavior: Behavior, listener: TcpListener) -> Result<()> {
    let room = Room::default();
    Server::new().serve(listener, move |socket: WebSocket| attend(room.clone(), behavior, socket)).await?;
    Ok(())
}

async fn attend(
    room: Room,
    behavior: Behavior,
    mut socket: WebSocket,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    room.senders().push(socket.sender());
    while let Some(message) = socket.recv().await? {
        let payload = match behavior {
            Behavior::Chat => message,
            _ => match requested(message.as_bytes()) {
                Some(payload) => payload.into(),
                None => continue,
            },
        };
        let messages: Vec<_> = (0..behavior.messages()).map(|_| Prepared::new(payload.clone())).collect();
        if behavior == Behavior::Burst {
            room.send_burst(&messages).await;
        } else {
            for message in &messages {
                room.send(message).await;
            }
        }
    }
    Ok(())
}

impl Room {
    async fn send(&self, message: &Prepared) {
        let mut full = Vec::new();
        self.senders().retain(|sender| match sender.try_send(message) {
            Err(TrySendError::Full(_)) => {
                full.push(sender.clone());
                true
            }
            Err(TrySendError::Closed(_)) => false,
            _ => true,
        });
        for sender in full {
            // A closed connection needs no message.
            let _ = sender.send(message).await;
        }
    }

    async fn send_burst(&self, messages: &[Prepared]) {
        let mut full = Vec::new();
        self.senders().retain(|sender| match sender.batch().try_send_all(messages) {
            Ok(()) => true,
            Err(TrySendError::Full(rest)) => {
                full.push((sender.clone(), messages.len() - rest.len()));
                true
            }
            Err(TrySendError::Closed(_)) => false,
        });
        for (sender, number) in full {
            let batch = sender.batch();
            for message in &messages[number..] {
                // A closed connection needs no message.
                let _ = batch.send(message).await;
            }
        }
    }

    fn senders(&self) -> std::sync::MutexGuard<'_, Vec<Sender>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
