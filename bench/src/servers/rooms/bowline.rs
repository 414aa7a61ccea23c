//! bowline's rooms: a list of senders, and prepared messages for all of them.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bowline::{Acceptor, Compression, Message, Prepared, Sender, Server, TrySendError, WebSocket};
use tokio::net::TcpListener;

use super::Request;
use crate::servers::library::Behavior;

/// The connections of the room.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<Sender>>>);

/// All rooms by number, where there are many.
type Rooms = Arc<Mutex<HashMap<usize, Room>>>;

/// The way in which a message is sent to all members.
#[derive(Clone, Copy, Debug)]
pub enum Sending {
    /// The message is encoded, and compressed, once for all.
    Prepared,
    /// The message is encoded, and compressed, for each member.
    Each,
}

pub async fn serve(behavior: Behavior, sending: Sending, listener: TcpListener) -> Result<()> {
    let (rooms, first) = (Rooms::default(), Room::default());
    server(behavior)
        .serve(listener, move |socket: WebSocket| {
            attend(Arc::clone(&rooms), first.clone(), behavior, sending, socket)
        })
        .await?;
    Ok(())
}

fn server(behavior: Behavior) -> Server {
    match behavior {
        Behavior::FanOutCompressed => {
            Server::new().acceptor(Acceptor::new().compression(Compression::NoContextTakeover))
        }
        _ => Server::new(),
    }
}

async fn attend(
    rooms: Rooms,
    mut room: Room,
    behavior: Behavior,
    sending: Sending,
    mut socket: WebSocket,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    if behavior != Behavior::Rooms {
        room.senders().push(socket.sender());
    }
    while let Some(message) = socket.recv().await? {
        let payload = match behavior {
            Behavior::Chat => message,
            _ => match Request::parse(behavior, message.as_bytes()) {
                Some(Request::Send(payload)) if behavior.kind().is_text() => {
                    String::from_utf8(payload)?.into()
                }
                Some(Request::Send(payload)) => payload.into(),
                Some(Request::Join(number)) => {
                    room = locked(&rooms).entry(number).or_default().clone();
                    room.senders().push(socket.sender());
                    continue;
                }
                None => continue,
            },
        };
        if matches!(sending, Sending::Each) {
            room.send_to_each(&payload).await;
            continue;
        }
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

    /// Sends a message as the loop of a beginner does. In the one case, no connection is ever full.
    async fn send_to_each(&self, message: &Message) {
        let senders = self.senders().clone();
        for sender in senders {
            // A closed connection needs no message.
            let _ = sender.send(message.clone()).await;
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

    fn senders(&self) -> MutexGuard<'_, Vec<Sender>> {
        locked(&self.0)
    }
}

/// Locks a mutex. No code panics while holding one of these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
