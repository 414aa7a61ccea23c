//! The socket of a connection: the object of JavaScript, what it reports, and its timers.
//!
//! These objects belong to the thread that created them, and lie in a table of this thread. Handles find
//! theirs by the number of the connection. No future holds such an object, so all futures are `Send`.
//!
//! ```text
//! handle --> Connection --number--> SOCKETS --> Socket --> JsTransport, timers
//!                ^                                                |
//!                '------------------------------------------------' reports
//! ```
//!
//! A socket leaves the table when its connection ends. Its transport reports nothing from then on.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
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
use crate::message::{Message, Payload};

#[wasm_bindgen]
extern "C" {
    /// Returns the text of any value, an exception among them.
    #[wasm_bindgen(js_name = String)]
    fn string(value: &JsValue) -> String;

    /// An array of bytes, or a string.
    #[wasm_bindgen(js_name = Uint8Array)]
    type Data;

    #[wasm_bindgen(constructor, js_class = "Uint8Array")]
    fn new(buffer: &JsValue) -> Data;

    /// Returns the number of bytes, or the length of a string in units of UTF-16.
    #[wasm_bindgen(method, getter, structural)]
    fn length(this: &Data) -> u32;

    /// Returns all bytes. (`Uint8Array::to_vec` would write twice to their memory.)
    #[wasm_bindgen(method)]
    fn subarray(this: &Data) -> Vec<u8>;
}

/// The close code for an exceeded limit: 1009 for applications, since browsers send no code below 3000 but
/// 1000.
const TOO_BIG: CloseCode = CloseCode(4009);

/// The longest time between two looks at the browser's buffer, in milliseconds.
const LONGEST_PACE: u32 = 32;

thread_local! {
    /// The sockets of this thread, in order of their numbers.
    static SOCKETS: RefCell<Vec<Rc<Socket>>> = const { RefCell::new(Vec::new()) };
}

/// A connection of the browser, with its timers.
pub(super) struct Socket {
    transport: JsTransport,
    connection: Arc<Connection>,
    /// For the handshake, and later for the closing handshake.
    deadline: Timer,
    /// The deadline was late once, and has started anew.
    was_forgiven: Cell<bool>,
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
    let handshake_timeout = limits.handshake_timeout;
    let connection = Arc::new(Connection::new(limits));
    let listener = Listener {
        connection: Arc::clone(&connection),
        report: |connection, report| {
            if let Ok(Some(socket)) = find(connection) {
                socket.heed(report);
            }
        },
    };
    let transport = JsTransport::open(url, &names, &listener)
        .map_err(|thrown| refused("the WebSocket can't be opened", &thrown))?;
    let socket = Rc::new(Socket {
        transport,
        connection: Arc::clone(&connection),
        deadline: Timer::new(calling(&connection, Socket::deadline_passed)),
        was_forgiven: Cell::new(false),
        pace: Timer::new(calling(&connection, Socket::look)),
        pacing: Cell::new(None),
        seen: Cell::new(0),
    });
    socket.deadline.set(handshake_timeout);
    SOCKETS.with_borrow_mut(|sockets| sockets.push(socket));
    Ok(connection)
}

/// Returns the socket of a connection, unless the connection has ended.
///
/// # Errors
///
/// Returns [`ErrorKind::InvalidInput`] in another thread than that of the socket.
pub(super) fn find(connection: &Connection) -> Result<Option<Rc<Socket>>, Error> {
    let found = SOCKETS.with_borrow(|sockets| {
        let position = sockets.binary_search_by_key(&connection.number, |socket| socket.connection.number);
        position.ok().and_then(|position| sockets.get(position).cloned())
    });
    // The table of its thread has the socket for as long as the connection has not ended.
    if found.is_none() && !connection.has_ended() {
        let text = "the WebSocket belongs to another worker: send, receive and close in the worker that has \
                    opened it";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(found)
}

/// Ends a connection whose `WebSocket` was dropped, unless it is closing already.
pub(super) fn abandon(connection: &Connection) {
    connection.discard();
    if connection.lock().is_closing() {
        return;
    }
    if !connection.is_closed() {
        events::connection_closed(None, events::Initiator::Us, None);
    }
    // In another thread, the socket notices at its next event.
    let socket = find(connection).ok().flatten();
    let buffered = socket.as_ref().map_or(0, |socket| socket.buffered());
    let error = Error::new(ErrorKind::Closed, "the connection is closed: its WebSocket was dropped");
    connection.end(Err(error), buffered);
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
        SOCKETS.with_borrow_mut(|sockets| sockets.retain(|socket| socket.connection.number != number));
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
    pub(super) fn send(&self, payload: &Payload<'_>) -> Result<(), Error> {
        self.transport.send(payload).map_err(|thrown| {
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
    pub(super) fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        // If the peer's Close frame was first, its event is on the way.
        let is_first = self.is_open();
        self.transport
            .close(code, reason)
            .map_err(|thrown| refused("the Close frame was refused", &thrown))?;
        self.deadline.start(self.connection.limits.close_timeout);
        if is_first && self.connection.start_close() {
            events::connection_closed(None, events::Initiator::Us, Some(code));
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
        if self.connection.has_ended() {
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
        if self.connection.has_ended() {
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
        self.was_forgiven.set(false);
        self.connection.open(self.transport.subprotocol());
        self.transport.receive();
    }

    fn message_arrived(&self, data: &JsValue) {
        match self.take_message(data) {
            Ok(true) => self.transport.receive(),
            Ok(false) => {}
            Err(error) => self.fail(error),
        }
    }

    /// Copies a message into the memory of the program, unless the message comes after our Close frame.
    /// Returns whether there is room for the next, or an error if the message is too large.
    fn take_message(&self, data: &JsValue) -> Result<bool, Error> {
        let (connection, arrival) = (&self.connection, self.transport.arrival());
        let admit = |size| connection.admit(size, arrival);
        let is_text = data.is_string();
        let data = if is_text { data.unchecked_ref() } else { &Data::new(data) };
        // UTF-8 has at least as many bytes as UTF-16 has units.
        if !admit(data.length() as usize)? {
            return Ok(true);
        }
        let (kind, payload) = if is_text {
            (MessageKind::Text, data.as_string().unwrap_or_default().into_bytes())
        } else {
            (MessageKind::Binary, data.subarray())
        };
        admit(payload.len())?;
        Ok(connection.receive(Message::from_validated(kind, payload.into())))
    }

    /// Ends the connection, since the peer has exceeded a limit.
    fn fail(&self, error: Error) {
        // Whoever is woken may drop the `WebSocket`, which would close without a code.
        let _ = self.transport.close(TOO_BIG, "too many bytes");
        events::connection_failed(None, TOO_BIG, &error);
        self.end(Err(error));
    }

    /// Before the connection is open, Node reports its failure by this event alone. Otherwise `closed`
    /// follows.
    fn failed(&self, cause: Option<String>) {
        if self.connection.lock().is_connecting() {
            self.end(Err(unreachable_server(cause)));
        }
    }

    fn closed(&self, code: u16, reason: &str) {
        let is_connecting = self.connection.lock().is_connecting();
        let result = match CloseFrame::new(CloseCode(code), reason) {
            _ if is_connecting => Err(unreachable_server(None)),
            Ok(frame) => Ok(frame),
            Err(_) if code == CloseCode::ABNORMAL.0 => Err(lost()),
            Err(_) => {
                let text =
                    ["the peer closed the connection with the invalid code ", &*u64::from(code).to_string()];
                Err(Error::new(ErrorKind::Protocol, text.iter().copied().collect::<String>()))
            }
        };
        if !self.connection.is_closed() {
            match &result {
                Ok(frame) => {
                    events::connection_closed(None, events::Initiator::Peer, Some(frame.code()));
                }
                Err(error) => events::connection_lost(None, error),
            }
        }
        self.end(result);
    }

    fn deadline_passed(&self) {
        let Limits { handshake_timeout, close_timeout, .. } = self.connection.limits;
        let (text, timeout, setting) = if self.connection.lock().is_connecting() {
            ("the handshake took longer than ", handshake_timeout, "handshake_timeout)")
        } else {
            ("the peer did not end the connection within ", close_timeout, "close_timeout)")
        };
        // What has arrived meanwhile is looked at first.
        if self.deadline.is_late() && !self.was_forgiven.replace(true) {
            return self.deadline.set(timeout);
        }
        let text = [text, &*milliseconds(timeout).to_string(), " ms (raise it with Limits::", setting]
            .iter()
            .copied()
            .collect::<String>();
        self.end(Err(Error::new(ErrorKind::Timeout, text)));
    }

    fn end(&self, result: Result<CloseFrame, Error>) {
        self.connection.end(result, self.buffered());
        self.remove();
    }
}

/// Returns a function for JavaScript that calls a method, as long as the connection has a socket.
fn calling(connection: &Arc<Connection>, method: fn(&Socket)) -> impl Fn() + 'static {
    let connection = Arc::clone(connection);
    move || {
        if let Ok(Some(socket)) = find(&connection) {
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
