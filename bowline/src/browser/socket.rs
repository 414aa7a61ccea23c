//! The browser's WebSocket: the object of JavaScript, its events and its timers.
//!
//! These objects belong to the thread that created them, and lie in a table of this thread. Handles find
//! theirs by the number of the connection. No future holds such an object, so all futures are `Send`.
//!
//! ```text
//! handle --number--> SOCKETS --> Socket --> WebSocket (JavaScript)
//!    |                             |  ^             |
//!    '--> Connection <-------------'  '--Weak-- event handlers, timers
//! ```
//!
//! A socket leaves the table when its connection ends. Its handlers are taken off before, so that
//! JavaScript never calls a closure that was dropped.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bowline_proto::{CloseCode, CloseFrame, MessageKind};
use js_sys::{Array, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use web_sys::{BinaryType, CloseEvent, Event, MessageEvent, WebSocket as JsWebSocket};

use super::connection::Connection;
use super::timer::Timer;
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::limits::Limits;
use crate::message::Message;

/// The close code for an exceeded limit: 1009 for applications, since browsers send no code below 3000 but
/// 1000.
const TOO_BIG: CloseCode = CloseCode(4009);

/// The longest time between two looks at the browser's buffer, in milliseconds.
const LONGEST_PACE: u32 = 32;

thread_local! {
    /// The sockets of this thread, in order of their numbers.
    static SOCKETS: RefCell<Vec<(u64, Rc<Socket>)>> = const { RefCell::new(Vec::new()) };
}

/// A WebSocket of the browser, with everything that it calls.
pub(super) struct Socket {
    js: JsWebSocket,
    connection: Arc<Connection>,
    /// For the handshake, and later for the closing handshake.
    deadline: Timer,
    /// For the next look at the browser's buffer, which raises no event when it empties.
    pace: Timer,
    /// The time until that look, in milliseconds. `None` if nobody waits.
    pacing: Cell<Option<u32>>,
    /// The size of the buffer at the last look.
    seen: Cell<u32>,
    _handlers: Handlers,
}

struct Handlers {
    open: Closure<dyn Fn()>,
    message: Closure<dyn Fn(MessageEvent)>,
    error: Closure<dyn Fn(Event)>,
    close: Closure<dyn Fn(CloseEvent)>,
}

/// Opens a WebSocket. Its handshake goes on by itself.
///
/// # Errors
///
/// Returns [`ErrorKind::InvalidInput`] if the browser refuses the URL or a subprotocol.
pub(super) fn open(url: &str, subprotocols: &[String], limits: Limits) -> Result<Arc<Connection>, Error> {
    let names: Array = subprotocols.iter().map(|name| JsValue::from_str(name)).collect();
    let js = JsWebSocket::new_with_str_sequence(url, &names)
        .map_err(|thrown| refused("the WebSocket can't be opened", &thrown))?;
    js.set_binary_type(BinaryType::Arraybuffer);
    let number = SOCKETS.with_borrow(|sockets| sockets.last().map_or(0, |(number, _)| number + 1));
    let handshake_timeout = limits.handshake_timeout;
    let connection = Arc::new(Connection::new(number, limits));
    let socket = Rc::new_cyclic(|socket| Socket::new(socket, js, Arc::clone(&connection)));
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
        let _ = socket.js.close();
    }
}

impl Socket {
    fn new(socket: &Weak<Self>, js: JsWebSocket, connection: Arc<Connection>) -> Self {
        let handlers = Handlers::new(socket);
        js.set_onopen(Some(handlers.open.as_ref().unchecked_ref()));
        js.set_onmessage(Some(handlers.message.as_ref().unchecked_ref()));
        js.set_onerror(Some(handlers.error.as_ref().unchecked_ref()));
        js.set_onclose(Some(handlers.close.as_ref().unchecked_ref()));
        Self {
            js,
            connection,
            deadline: Timer::new(calling(socket, Self::deadline_passed)),
            pace: Timer::new(calling(socket, Self::look)),
            pacing: Cell::new(None),
            seen: Cell::new(0),
            _handlers: handlers,
        }
    }

    /// Takes the handlers off, and the socket out of the table.
    fn remove(&self) {
        self.js.set_onopen(None);
        self.js.set_onmessage(None);
        self.js.set_onerror(None);
        self.js.set_onclose(None);
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
        self.js.buffered_amount()
    }

    /// Returns whether the browser still sends. It starts to close before it tells.
    pub(super) fn is_open(&self) -> bool {
        self.js.ready_state() == JsWebSocket::OPEN
    }

    /// The extensions that the server has agreed to.
    pub(super) fn extensions(&self) -> String {
        self.js.extensions()
    }

    /// Hands a message to the browser.
    pub(super) fn send(&self, kind: MessageKind, payload: &[u8]) -> Result<(), Error> {
        let sent = match (kind, std::str::from_utf8(payload)) {
            (MessageKind::Text, Ok(text)) => self.js.send_with_str(text),
            _ => self.send_binary(payload),
        };
        sent.map_err(|thrown| Error::with_source(ErrorKind::Io, "the browser can't send", text_of(&thrown)))
    }

    // A view of shared memory is refused by browsers, so the payload is copied into memory of its own.
    #[cfg(target_feature = "atomics")]
    fn send_binary(&self, payload: &[u8]) -> Result<(), JsValue> {
        self.js.send_with_js_u8_array(&Uint8Array::new_from_slice(payload))
    }

    #[cfg(not(target_feature = "atomics"))]
    fn send_binary(&self, payload: &[u8]) -> Result<(), JsValue> {
        self.js.send_with_u8_array(payload)
    }

    /// Starts the closing handshake.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if the frame is one that browsers don't send.
    pub(super) fn close(&self, frame: &CloseFrame) -> Result<(), Error> {
        // If the peer's Close frame was first, its event is on the way.
        let is_first = self.is_open();
        self.close_with(frame).map_err(|thrown| refused("the Close frame was refused", &thrown))?;
        self.deadline.start(self.connection.limits.close_timeout);
        if is_first && self.connection.start_close() {
            events::connection_closed(None, events::Initiator::Us, Some(frame.code()));
        }
        Ok(())
    }

    fn close_with(&self, frame: &CloseFrame) -> Result<(), JsValue> {
        if frame.code() == CloseCode::NO_STATUS {
            return self.js.close();
        }
        self.js.close_with_code_and_reason(frame.code().0, frame.reason())
    }

    /// Looks at the browser's buffer soon, since someone waits for it to empty.
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
            return self.remove_dropped();
        }
        let buffered = self.buffered();
        let has_shrunk = buffered < self.seen.replace(buffered);
        let mark = self.connection.limits.write_buffer;
        let waits = self.connection.lock().waits_for_buffer();
        if waits {
            self.look_in(if has_shrunk { 1 } else { LONGEST_PACE.min(2 * pace) });
        }
        self.connection.update(|state, wakers| {
            state.flushers.wake_all(wakers);
            if (buffered as usize) < mark {
                state.senders.wake_first(wakers);
            }
        });
    }

    fn opened(&self) {
        if self.connection.lock().has_ended() {
            return self.remove_dropped();
        }
        self.deadline.clear();
        let subprotocol = self.js.protocol();
        if !subprotocol.is_empty() {
            let _ = self.connection.subprotocol.set(subprotocol);
        }
        self.connection.open();
    }

    fn message_arrived(&self, event: &MessageEvent) {
        if self.connection.lock().has_ended() {
            return self.remove_dropped();
        }
        let data = event.data();
        let message = match data.as_string() {
            Some(text) => Message::from(text),
            None => Message::from(Uint8Array::new(&data).to_vec()),
        };
        if let Err(error) = self.connection.receive(message) {
            if self.connection.end(Err(error.clone()), self.buffered()) {
                events::connection_failed(None, TOO_BIG, &error);
            }
            self.remove();
            let frame = CloseFrame::new(TOO_BIG, "too many bytes").expect("4009 may be sent");
            let _ = self.close_with(&frame);
        }
    }

    /// Before the connection is open, Node reports its failure by this event alone. Otherwise `closed`
    /// follows.
    fn failed(&self, event: &Event) {
        if self.connection.lock().is_connecting() {
            // Other runtimes than browsers say why.
            let cause = Reflect::get(event, &"message".into()).ok().and_then(|text| text.as_string());
            self.connection.end(Err(unreachable_server(cause)), 0);
            self.remove();
        }
    }

    fn closed(&self, event: &CloseEvent) {
        let is_connecting = self.connection.lock().is_connecting();
        let frame = CloseFrame::new(CloseCode(event.code()), &event.reason());
        let result = match frame {
            _ if is_connecting => Err(unreachable_server(None)),
            Ok(frame) => Ok(frame),
            Err(_) if event.code() == CloseCode::ABNORMAL.0 => Err(lost()),
            Err(_) => {
                let text = format!("the peer closed the connection with the invalid code {}", event.code());
                Err(Error::new(ErrorKind::Protocol, text))
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
        // `Debug` of a duration would be a twentieth of a small program.
        let text = if self.connection.lock().is_connecting() {
            let timeout = milliseconds(handshake_timeout);
            format!("the handshake took longer than {timeout} ms (raise it with Limits::handshake_timeout)")
        } else {
            let timeout = milliseconds(close_timeout);
            format!("the peer did not end the connection within {timeout} ms (Limits::close_timeout)")
        };
        self.connection.end(Err(Error::new(ErrorKind::Timeout, text)), self.buffered());
        self.remove();
        let _ = self.js.close();
    }

    /// Ends the socket of a connection that was dropped in another thread.
    fn remove_dropped(&self) {
        self.remove();
        let _ = self.js.close();
    }
}

impl Handlers {
    fn new(socket: &Weak<Socket>) -> Self {
        Self {
            open: Closure::new(calling(socket, Socket::opened)),
            message: Closure::new(calling_with(socket, Socket::message_arrived)),
            error: Closure::new(calling_with(socket, Socket::failed)),
            close: Closure::new(calling_with(socket, Socket::closed)),
        }
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

/// Does the same for a method with an argument.
fn calling_with<T: 'static>(socket: &Weak<Socket>, method: fn(&Socket, &T)) -> impl Fn(T) + 'static {
    let socket = Weak::clone(socket);
    move |argument| {
        if let Some(socket) = socket.upgrade() {
            method(&socket, &argument);
        }
    }
}

/// Returns the error of a call that the browser has refused by an exception.
fn refused(text: &'static str, thrown: &JsValue) -> Error {
    Error::with_source(ErrorKind::InvalidInput, text, text_of(thrown))
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_secs() * 1000 + u64::from(duration.subsec_millis())
}

/// Returns the text of an exception.
fn text_of(thrown: &JsValue) -> String {
    match thrown.dyn_ref::<js_sys::Error>() {
        Some(error) => error.to_string().into(),
        None => thrown.as_string().unwrap_or_default(),
    }
}

fn unreachable_server(cause: Option<String>) -> Error {
    let text = "the WebSocket was not opened: browsers don't tell a server that can't be reached from one \
                that refuses, nor from a failure of TLS; see the network tab of the developer tools";
    match cause {
        Some(cause) if !cause.is_empty() => Error::with_source(ErrorKind::Disconnected, text, cause),
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
