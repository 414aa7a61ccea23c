//! The socket of a connection: the object of JavaScript, what it reports, and its timers.
//!
//! These objects belong to the thread that created them, and lie in a table of this thread. Handles find
//! theirs by the number of the connection. No future holds such an object, so all futures are `Send`.
//!
//! ```text
//! handle --number--> SOCKETS --> Socket --> JsTransport
//!    |                             |  ^          |
//!    '--> Connection <-------------'  '--Weak----' reports, timers
//! ```
//!
//! A socket leaves the table when its connection ends. Its transport reports nothing from then on.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bowline_proto::{CloseCode, CloseFrame, MessageKind};
use js_sys::Array;
use wasm_bindgen::prelude::*;

use super::connection::Connection;
use super::timer::{Timer, milliseconds};
use super::transport::{JsTransport, Listener, Report};
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::limits::Limits;
use crate::message::Message;

#[wasm_bindgen]
extern "C" {
    /// Returns the text of any value, an exception among them.
    #[wasm_bindgen(js_name = String)]
    fn string(value: &JsValue) -> String;

    #[wasm_bindgen(js_name = Uint8Array)]
    type Bytes;

    #[wasm_bindgen(constructor, js_class = "Uint8Array")]
    fn new(buffer: &JsValue) -> Bytes;

    /// Returns all bytes. (`Uint8Array::to_vec` would write twice to their memory.)
    #[wasm_bindgen(method)]
    fn subarray(this: &Bytes) -> Vec<u8>;
}

/// The close code for an exceeded limit: 1009 for applications, since browsers send no code below 3000 but
/// 1000.
const TOO_BIG: CloseCode = CloseCode(4009);

/// The longest time between two looks at the browser's buffer, in milliseconds.
const LONGEST_PACE: u32 = 32;

thread_local! {
    /// The sockets of this thread, in order of their numbers.
    static SOCKETS: RefCell<Vec<(u64, Rc<Socket>)>> = const { RefCell::new(Vec::new()) };
}

/// A connection of the browser, with its timers.
pub(super) struct Socket {
    transport: JsTransport,
    connection: Arc<Connection>,
    /// For the handshake, and later for the closing handshake.
    deadline: Timer,
    /// For the next look at the browser's buffer, which raises no event when it empties.
    pace: Timer,
    /// The time until that look, in milliseconds. `None` if nobody waits.
    pacing: Cell<Option<u32>>,
    /// The size of the buffer at the last look.
    seen: Cell<u32>,
}

/// Opens a WebSocket. Its handshake goes on by itself.
///
/// # Errors
///
/// Returns [`ErrorKind::InvalidInput`] if the browser refuses the URL or a subprotocol.
pub(super) fn open(url: &str, subprotocols: &[String], limits: Limits) -> Result<Arc<Connection>, Error> {
    let names: Array = subprotocols.iter().map(|name| JsValue::from_str(name)).collect();
    let place = Rc::new(OnceCell::<Weak<Socket>>::new());
    let found = Rc::clone(&place);
    let listener: Listener = Rc::new(move |report| {
        if let Some(socket) = found.get().and_then(Weak::upgrade) {
            socket.heed(report);
        }
    });
    let transport = JsTransport::open(url, &names, &listener)
        .map_err(|thrown| refused("the WebSocket can't be opened", &thrown))?;
    let number = SOCKETS.with_borrow(|sockets| sockets.last().map_or(0, |(number, _)| number + 1));
    let handshake_timeout = limits.handshake_timeout;
    let connection = Arc::new(Connection::new(number, limits));
    let socket = Rc::new_cyclic(|socket| Socket {
        transport,
        connection: Arc::clone(&connection),
        deadline: Timer::new(calling(socket, Socket::deadline_passed)),
        pace: Timer::new(calling(socket, Socket::look)),
        pacing: Cell::new(None),
        seen: Cell::new(0),
    });
    let _ = place.set(Rc::downgrade(&socket));
    socket.deadline.set(handshake_timeout);
    SOCKETS.with_borrow_mut(|sockets| sockets.push((number, socket)));
    Ok(connection)
}

/// Returns the socket of a connection, unless the connection has ended.
///
/// # Errors
///
/// Returns [`ErrorKind::InvalidInput`] in another thread than that of the socket.
pub(super) fn find(connection: &Connection) -> Result<Option<Rc<Socket>>, Error> {
    connection.check_thread()?;
    Ok(SOCKETS.with_borrow(|sockets| {
        let position = sockets.binary_search_by_key(&connection.number, |(number, _)| *number).ok()?;
        let (_, socket) = &sockets[position];
        std::ptr::eq(&raw const *socket.connection, connection).then(|| Rc::clone(socket))
    }))
}

/// Ends a connection whose `WebSocket` was dropped, unless it is closing already.
pub(super) fn abandon(connection: &Connection) {
    connection.discard();
    if connection.lock().is_closing() {
        return;
    }
    let error = Error::new(ErrorKind::Closed, "the connection is closed: its WebSocket was dropped");
    // In another thread, the socket notices at its next event.
    let socket = find(connection).ok().flatten();
    let buffered = socket.as_ref().map_or(0, |socket| socket.buffered());
    if connection.end(Err(error), buffered) {
        events::connection_closed(None, events::Initiator::Us, None);
    }
    if let Some(socket) = socket {
        socket.remove();
    }
}

impl Socket {
    /// Takes the socket out of the table, and closes the connection unless it has ended.
    fn remove(&self) {
        self.transport.leave();
        self.deadline.clear();
        self.pace.clear();
        let number = self.connection.number;
        let removed = SOCKETS.with_borrow_mut(|sockets| {
            let position = sockets.binary_search_by_key(&number, |(number, _)| *number).ok()?;
            Some(sockets.remove(position))
        });
        drop(removed);
    }

    /// The number of bytes that the browser has been handed and has not written.
    pub(super) fn buffered(&self) -> u32 {
        self.transport.buffered()
    }

    /// Returns whether the browser still sends. It starts to close before it tells.
    pub(super) fn is_open(&self) -> bool {
        self.transport.is_open()
    }

    /// The extensions that the server has agreed to.
    pub(super) fn extensions(&self) -> String {
        self.transport.extensions()
    }

    /// Hands a message to the browser.
    pub(super) fn send(&self, kind: MessageKind, payload: &[u8]) -> Result<(), Error> {
        self.transport.send(kind, payload).map_err(|thrown| {
            Error::with_source(ErrorKind::Io, "the browser can't send", Exception::of(&thrown))
        })
    }

    /// Lets messages arrive again, since one was received.
    pub(super) fn receive(&self) {
        self.transport.receive();
    }

    /// Starts the closing handshake.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if the frame is one that browsers don't send.
    pub(super) fn close(&self, frame: &CloseFrame) -> Result<(), Error> {
        // If the peer's Close frame was first, its event is on the way.
        let is_first = self.is_open();
        self.transport.close(frame).map_err(|thrown| refused("the Close frame was refused", &thrown))?;
        self.deadline.start(self.connection.limits.close_timeout);
        if is_first && self.connection.start_close() {
            events::connection_closed(None, events::Initiator::Us, Some(frame.code()));
        }
        // What is in front of the peer's Close frame is discarded, so it need not wait.
        self.transport.receive();
        Ok(())
    }

    /// Looks at the browser's buffer soon, since someone waits for it to empty.
    ///
    /// A stream tells when it does, but not when a sender that was woken is no longer polled.
    pub(super) fn watch_buffer(&self) {
        if self.pacing.get().is_none() {
            self.seen.set(self.buffered());
            self.look_in(1);
        }
    }

    fn look_in(&self, milliseconds: u32) {
        self.pacing.set(Some(milliseconds));
        self.pace.set(Duration::from_millis(milliseconds.into()));
    }

    /// Looks at the browser's buffer, and wakes those who wait for it.
    fn look(&self) {
        let Some(pace) = self.pacing.take() else { return };
        if self.connection.lock().has_ended() {
            return self.remove();
        }
        let buffered = self.buffered();
        let has_shrunk = buffered < self.seen.replace(buffered);
        let waits = self.connection.lock().waits_for_buffer();
        if waits {
            self.look_in(if has_shrunk { 1 } else { LONGEST_PACE.min(2 * pace) });
        }
        self.written();
    }

    /// Wakes those who wait for the browser's buffer.
    fn written(&self) {
        let has_room = (self.buffered() as usize) < self.connection.limits.write_buffer;
        self.connection.update(|state, wakers| {
            state.flushers.wake_all(wakers);
            if has_room {
                state.senders.wake_first(wakers);
            }
        });
    }

    fn heed(&self, report: Report) {
        // In another thread, the connection may have ended without this socket.
        if self.connection.lock().has_ended() {
            return self.remove();
        }
        match report {
            Report::Opened => self.opened(),
            Report::Message(data) => self.message_arrived(&data),
            Report::Written => self.written(),
            Report::Failed(cause) => self.failed(cause),
            Report::Closed(code, reason) => self.closed(code, &reason),
        }
    }

    fn opened(&self) {
        self.deadline.clear();
        self.connection.open(&self.transport.subprotocol());
        self.transport.receive();
    }

    fn message_arrived(&self, data: &JsValue) {
        let message = match data.as_string() {
            Some(text) => Message::from(text),
            None => Message::from(Bytes::new(data).subarray()),
        };
        match self.connection.receive(message, self.transport.arrival()) {
            Ok(true) => self.transport.receive(),
            Ok(false) => {}
            Err(error) => {
                if self.connection.end(Err(error.clone()), self.buffered()) {
                    events::connection_failed(None, TOO_BIG, &error);
                }
                if let Ok(frame) = CloseFrame::new(TOO_BIG, "too many bytes") {
                    let _ = self.transport.close(&frame);
                }
                self.remove();
            }
        }
    }

    /// Before the connection is open, Node reports its failure by this event alone. Otherwise `closed`
    /// follows.
    fn failed(&self, cause: Option<String>) {
        if self.connection.lock().is_connecting() {
            self.connection.end(Err(unreachable_server(cause)), 0);
            self.remove();
        }
    }

    fn closed(&self, code: u16, reason: &str) {
        let is_connecting = self.connection.lock().is_connecting();
        let result = match CloseFrame::new(CloseCode(code), reason) {
            _ if is_connecting => Err(unreachable_server(None)),
            Ok(frame) => Ok(frame),
            Err(_) if code == CloseCode::ABNORMAL.0 => Err(lost()),
            Err(_) => {
                let text = ["the peer closed the connection with the invalid code ", &*code.to_string()];
                Err(Error::new(ErrorKind::Protocol, text.iter().copied().collect::<String>()))
            }
        };
        if self.connection.end(result.clone(), self.buffered()) {
            match result {
                Ok(frame) => {
                    events::connection_closed(None, events::Initiator::Peer, Some(frame.code()));
                }
                Err(error) => events::connection_lost(None, &error),
            }
        }
        self.remove();
    }

    fn deadline_passed(&self) {
        let Limits { handshake_timeout, close_timeout, .. } = self.connection.limits;
        let (text, timeout, setting) = if self.connection.lock().is_connecting() {
            ("the handshake took longer than ", handshake_timeout, "handshake_timeout)")
        } else {
            ("the peer did not end the connection within ", close_timeout, "close_timeout)")
        };
        let text = [text, &*milliseconds(timeout).to_string(), " ms (raise it with Limits::", setting]
            .iter()
            .copied()
            .collect::<String>();
        self.connection.end(Err(Error::new(ErrorKind::Timeout, text)), self.buffered());
        self.remove();
    }
}

/// Returns a function for JavaScript that calls a method, as long as the socket exists.
fn calling(socket: &Weak<Socket>, method: fn(&Socket)) -> impl Fn() + 'static {
    let socket = Weak::clone(socket);
    move || {
        if let Some(socket) = socket.upgrade() {
            method(&socket);
        }
    }
}

/// Returns the error of a call that the browser has refused by an exception.
fn refused(text: &'static str, thrown: &JsValue) -> Error {
    Error::with_source(ErrorKind::InvalidInput, text, Exception::of(thrown))
}

/// The text of an exception of JavaScript.
///
/// (`Debug` of a string would be a tenth of a small program.)
struct Exception(String);

impl Exception {
    fn of(thrown: &JsValue) -> Self {
        Self(string(thrown))
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Exception {}

fn unreachable_server(cause: Option<String>) -> Error {
    let text = "the WebSocket was not opened: browsers don't tell a server that can't be reached from one \
                that refuses, nor from a failure of TLS; see the network tab of the developer tools";
    match cause {
        Some(cause) if !cause.is_empty() => {
            Error::with_source(ErrorKind::Disconnected, text, Exception(cause))
        }
        _ => Error::new(ErrorKind::Disconnected, text),
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Disconnected,
        "the connection ended without a Close frame: the peer is gone or broke the protocol (browsers don't \
         tell which)",
    )
}
