//! The floor of rooms: each frame is encoded once and written directly to each socket, without a library.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};

use super::Request;
use crate::frames::{copy_masked, encode_header, encode_unmasked, header};
use crate::handshake::{COMPRESSION, shake_hands};
use crate::servers::accept::each;
use crate::servers::library::{BURST, Behavior};

thread_local! {
    static INPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

/// The connections of the room.
#[derive(Default)]
struct Room {
    members: Mutex<Vec<Arc<Member>>>,
}

/// All rooms by number, where there are many.
type Rooms = Mutex<HashMap<usize, Arc<Room>>>;

struct Member {
    stream: TcpStream,
    /// Bytes that the socket has not accepted yet.
    unwritten: Mutex<Vec<u8>>,
}

pub async fn serve(behavior: Behavior, listener: TcpListener) -> Result<()> {
    let (rooms, first) = (Arc::new(Rooms::default()), Arc::new(Room::default()));
    each(listener, move |stream| attend(Arc::clone(&rooms), Arc::clone(&first), behavior, stream)).await
}

async fn attend(
    rooms: Arc<Rooms>,
    mut room: Arc<Room>,
    behavior: Behavior,
    mut stream: TcpStream,
) -> Result<()> {
    let extension = behavior.kind().is_compressed().then_some(COMPRESSION);
    // The handshake is a boxed future, so that its buffer doesn't live as long as the connection.
    Box::pin(shake_hands(&mut stream, extension)).await?;
    let member = Arc::new(Member { stream, unwritten: Mutex::default() });
    if behavior != Behavior::Rooms {
        locked(&room.members).push(Arc::clone(&member));
    }
    let done = member.read(&rooms, &mut room, behavior).await;
    locked(&room.members).retain(|other| !Arc::ptr_eq(other, &member));
    done
}

impl Member {
    async fn read(self: &Arc<Self>, rooms: &Rooms, room: &mut Arc<Room>, behavior: Behavior) -> Result<()> {
        let mut partial = Vec::new();
        loop {
            self.stream.readable().await?;
            let ended = INPUT.with_borrow_mut(|input| match self.stream.try_read(input) {
                Ok(0) => Ok(true),
                Ok(count) => {
                    let mut out = Vec::new();
                    let mut join = |number| {
                        *room = Arc::clone(locked(rooms).entry(number).or_default());
                        locked(&room.members).push(Arc::clone(self));
                    };
                    if partial.is_empty() {
                        let taken = answer(&input[..count], behavior, &mut join, &mut out);
                        partial.extend_from_slice(&input[taken..count]);
                    } else {
                        partial.extend_from_slice(&input[..count]);
                        let taken = answer(&partial, behavior, &mut join, &mut out);
                        partial.drain(..taken);
                    }
                    let at_once =
                        if behavior == Behavior::BurstOneByOne { out.len() / BURST } else { out.len() };
                    for frames in out.chunks(at_once.max(1)) {
                        locked(&room.members).iter().for_each(|member| member.write(frames));
                    }
                    Ok(false)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(error),
            })?;
            if ended {
                return Ok(());
            }
        }
    }

    /// Writes a frame. A task writes the bytes that the socket doesn't accept at once.
    fn write(self: &Arc<Self>, frame: &[u8]) {
        let mut unwritten = locked(&self.unwritten);
        if !unwritten.is_empty() {
            return unwritten.extend_from_slice(frame);
        }
        // If the connection has failed, its reading task notices.
        let count = self.stream.try_write(frame).unwrap_or_default();
        if count < frame.len() {
            unwritten.extend_from_slice(&frame[count..]);
            let member = Arc::clone(self);
            tokio::spawn(async move { member.write_rest().await });
        }
    }

    async fn write_rest(&self) {
        while self.stream.writable().await.is_ok() {
            let mut unwritten = locked(&self.unwritten);
            match self.stream.try_write(&unwritten) {
                Ok(count) => drop(unwritten.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => unwritten.clear(),
            }
            if unwritten.is_empty() {
                *unwritten = Vec::new();
                return;
            }
        }
    }
}

/// Appends the frames that the messages in `bytes` cause for all members, and returns how many bytes were
/// consumed. `join` enters the room with a number.
fn answer(bytes: &[u8], behavior: Behavior, join: &mut impl FnMut(usize), out: &mut Vec<u8>) -> usize {
    let mut rest = bytes;
    while let Some(found) = header(rest) {
        let end = found.size + found.len as usize;
        let Some(masked) = rest.get(found.size..end) else { break };
        if behavior == Behavior::Chat {
            encode_header(found.first, masked.len(), None, out);
            copy_masked(masked, found.key, out);
        } else {
            let mut request = Vec::new();
            copy_masked(masked, found.key, &mut request);
            match Request::parse(behavior, &request) {
                Some(Request::Send(payload)) => {
                    for _ in 0..behavior.messages() {
                        encode_unmasked(behavior.kind(), &payload, out);
                    }
                }
                Some(Request::Join(number)) => join(number),
                None => {}
            }
        }
        rest = &rest[end..];
    }
    bytes.len() - rest.len()
}

/// Locks a mutex. No code panics while holding one of these locks.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
