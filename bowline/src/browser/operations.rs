//! The futures of a connection's callers.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bowline_proto::{CloseCode, CloseFrame};

use super::connection::{Connection, State};
use super::socket;
use super::turns::{Ticket, WaiterKind};
use crate::error::{Error, ErrorKind, TrySendError};
use crate::message::{Message, Payload};

/// A sender of one connection, with its place among those who wait.
pub(super) struct Sending {
    pub(super) connection: Arc<Connection>,
    ticket: Ticket,
    /// The kind of place that it takes.
    kind: WaiterKind,
}

impl Sending {
    pub(super) fn new(connection: Arc<Connection>, kind: WaiterKind) -> Self {
        Self { connection, ticket: Ticket::default(), kind }
    }

    /// Waits until it is this sender's turn and the browser's buffer has room.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { connection, ticket, kind } = self;
        let socket = open_socket(connection)?;
        let has_room = (socket.buffered() as usize) < connection.limits.write_buffer;
        let mut state = connection.lock();
        if has_room && state.senders.is_first(ticket) {
            return Poll::Ready(Ok(()));
        }
        let replaced = state.senders.wait(ticket, *kind, cx.waker());
        drop(state);
        drop(replaced);
        socket.watch_buffer();
        Poll::Pending
    }

    /// Hands a message to the browser, and gives the place up. Room was waited for.
    pub(super) fn send(&mut self, payload: &Payload<'_>) -> Result<(), Error> {
        let sent = hand_over(&self.connection, payload);
        self.leave();
        sent
    }

    /// Gives the place up. If there is room, the next sender is woken.
    fn leave(&mut self) {
        if !self.ticket.is_held() {
            return;
        }
        let Self { connection, ticket, .. } = self;
        let buffered = socket::find(connection).ok().flatten().map(|socket| socket.buffered());
        let has_room = buffered.is_some_and(|bytes| (bytes as usize) < connection.limits.write_buffer);
        let left = connection.update(|state, wakers| {
            let left = state.senders.leave(ticket);
            if has_room {
                state.senders.wake_first(wakers);
            }
            left
        });
        drop(left);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Sends a message when it is its turn.
pub(super) fn send<'a>(
    connection: &Arc<Connection>,
    message: Payload<'a>,
) -> impl Future<Output = Result<(), Error>> + use<'a> {
    let mut sending = Sending::new(Arc::clone(connection), WaiterKind::Future);
    async move {
        poll_fn(|cx| sending.poll_room(cx)).await?;
        sending.send(&message)
    }
}

/// Sends a message if that is possible without waiting.
pub(super) fn try_send<'a, M: Into<Payload<'a>>>(
    connection: &Arc<Connection>,
    message: M,
) -> Result<(), TrySendError<M>> {
    let Ok(socket) = open_socket(connection) else { return Err(TrySendError::Closed(message)) };
    let has_room = (socket.buffered() as usize) < connection.limits.write_buffer;
    if !has_room || !connection.lock().senders.is_empty() {
        return Err(TrySendError::Full(message));
    }
    // The message is gone once it is converted, and nothing fails after the checks.
    let _ = hand_over(connection, &message.into());
    Ok(())
}

/// Waits for the next message or the end.
pub(super) fn recv(connection: &Connection) -> impl Future<Output = Result<Option<Message>, Error>> {
    poll_fn(|cx| poll_message(connection, cx))
}

/// Waits for the next message or the end. The messages that it makes room for may arrive.
pub(super) fn poll_message(
    connection: &Connection,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Message>, Error>> {
    let socket = socket::find(connection)?;
    let poll = connection.poll_message(cx);
    if poll.is_ready() && connection.resume() {
        if let Some(socket) = socket {
            socket.receive();
        }
    }
    poll
}

/// Waits until the browser has written everything that it was handed before.
pub(super) async fn flush(connection: &Arc<Connection>) -> Result<(), Error> {
    socket::find(connection)?;
    let accepted = connection.lock().accepted();
    let mut waiting = Waiting::new(connection, Line::Flushers);
    poll_fn(|cx| {
        let socket = socket::find(connection)?;
        let buffered = socket.as_ref().map_or(0, |socket| socket.buffered());
        let mut state = connection.lock();
        if let Some(result) = state.flushed(accepted, buffered) {
            return Poll::Ready(result);
        }
        let replaced = state.flushers.wait(&mut waiting.ticket, WaiterKind::Future, cx.waker());
        drop(state);
        drop(replaced);
        if let Some(socket) = socket {
            socket.watch_buffer();
        }
        Poll::Pending
    })
    .await
}

/// A wait for the end, for callers that poll by hand.
#[cfg(feature = "futures")]
pub(super) struct Ending(Waiting);

#[cfg(feature = "futures")]
impl Ending {
    /// Closes with 1000.
    pub(super) fn begin(connection: &Arc<Connection>) -> Result<Self, Error> {
        begin_close(connection, CloseCode::NORMAL, "")?;
        Ok(Self(Waiting::new(connection, Line::Watchers)))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Waiting { connection, ticket, .. } = &mut self.0;
        connection.poll_watch(cx, ticket, State::closing_result).map_ok(drop)
    }
}

/// Waits for a stage at which `check` returns a result.
fn watch<T>(connection: &Arc<Connection>, check: impl Fn(&State) -> Option<T>) -> impl Future<Output = T> {
    let mut waiting = Waiting::new(connection, Line::Watchers);
    poll_fn(move |cx| {
        let Waiting { connection, ticket, .. } = &mut waiting;
        connection.poll_watch(cx, ticket, &check)
    })
}

/// Waits until the connection is open.
///
/// # Errors
///
/// Returns the error for which it was not opened.
#[cfg(feature = "client")]
pub(super) fn opened(connection: &Arc<Connection>) -> impl Future<Output = Result<(), Error>> {
    watch(connection, State::opening_result)
}

/// Waits until no more messages can be sent.
pub(super) fn closed(connection: &Arc<Connection>) -> impl Future<Output = ()> {
    watch(connection, |state| state.is_closed().then_some(()))
}

/// Returns the number of bytes that the browser has not written.
pub(super) fn pending(connection: &Connection) -> usize {
    let socket = socket::find(connection).ok().flatten();
    socket.map_or(0, |socket| socket.buffered() as usize)
}

/// Starts the closing handshake.
pub(super) fn begin_close(connection: &Connection, code: CloseCode, reason: &str) -> Result<(), Error> {
    CloseFrame::new(code, reason)?;
    if !matches!(code, CloseCode::NORMAL | CloseCode::NO_STATUS) && code.0 < 3000 {
        let text = format!("browsers don't send the close code {code}: use 1000, or one of 3000 to 4999");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    match socket::find(connection)? {
        Some(socket) => socket.close(code, reason),
        None => Ok(()),
    }
}

/// Starts the closing handshake, and waits until the connection has ended.
pub(super) async fn close(
    connection: &Arc<Connection>,
    code: CloseCode,
    reason: &str,
) -> Result<CloseFrame, Error> {
    begin_close(connection, code, reason)?;
    watch(connection, State::closing_result).await
}

/// A place in one of the lines that nobody waits behind.
struct Waiting {
    connection: Arc<Connection>,
    ticket: Ticket,
    line: Line,
}

enum Line {
    Flushers,
    Watchers,
}

impl Waiting {
    fn new(connection: &Arc<Connection>, line: Line) -> Self {
        Self { connection: Arc::clone(connection), ticket: Ticket::default(), line }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.connection.lock();
        let line = match self.line {
            Line::Flushers => &mut state.flushers,
            Line::Watchers => &mut state.watchers,
        };
        let waker = line.leave(&mut self.ticket);
        drop(state);
        drop(waker);
    }
}

/// Returns the socket, if messages can be sent on it.
fn open_socket(connection: &Connection) -> Result<std::rc::Rc<socket::Socket>, Error> {
    let socket = socket::find(connection)?;
    if let Some(error) = connection.lock().closed() {
        return Err(error);
    }
    // The browser discards what it is handed after the peer's Close frame, and tells of that frame later.
    socket.filter(|socket| socket.is_open()).ok_or_else(|| {
        Error::new(ErrorKind::Closed, "the connection is closed: the peer or the browser is closing it")
    })
}

/// Hands a message to the browser.
fn hand_over(connection: &Connection, payload: &Payload<'_>) -> Result<(), Error> {
    open_socket(connection)?.send(payload)?;
    connection.lock().accept(payload.parts().1.len());
    Ok(())
}
