//! The object of JavaScript that carries the messages: a `WebSocket` everywhere, or a `WebSocketStream`.
//!
//! Chromium has the second, whose reader decides when the browser reads on, so the server has to wait for a
//! slow page. The choice is made when a connection is opened, if the feature `websocket-stream` is enabled.
//!
//! | | `WebSocket` | `WebSocketStream` |
//! |---|---|---|
//! | a message arrives | whenever the server sends one | after [`JsTransport::receive`] |
//! | the browser's buffer | is looked at ([`JsTransport::buffered`]) | reports what has left it |
//! | after the end of interest | its handlers are taken off | its promises find nobody |
//!
//! Both report the rest in the same way, to one [`Listener`].

mod event_socket;
#[cfg_attr(not(feature = "websocket-stream"), path = "transport/absent.rs")]
mod stream_socket;

use std::rc::Rc;
use std::sync::Arc;

use bowline_proto::{CloseCode, MessageKind};
use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::*;

use event_socket::EventSocket;
use stream_socket::StreamSocket;

use super::connection::Connection;
use super::inbox::Arrival;
use crate::message::{Payload, Utf8Bytes};

/// An event of a transport.
pub(super) enum Report {
    /// The handshake is done.
    Opened,
    /// A message has arrived: a string, or an `ArrayBuffer` or an array of bytes.
    Message(JsValue),
    /// Bytes have left the browser's buffer.
    #[cfg_attr(not(feature = "websocket-stream"), allow(dead_code, reason = "only streams tell"))]
    Written,
    /// The connection was not opened, perhaps with the cause.
    Failed(Option<String>),
    /// The connection has ended, with this code and reason.
    Closed(u16, String),
}

/// The receiver of the reports of a connection.
#[derive(Clone)]
pub(super) struct Listener {
    pub(super) connection: Arc<Connection>,
    pub(super) report: fn(&Connection, Report),
}

impl Listener {
    fn report(&self, report: Report) {
        (self.report)(&self.connection, report);
    }
}

/// A connection of the browser.
pub(super) enum JsTransport {
    Events(EventSocket),
    Stream(Rc<StreamSocket>),
}

impl JsTransport {
    /// Opens a connection. Its handshake goes on by itself.
    ///
    /// # Errors
    ///
    /// Returns the exception of the browser if it refuses the URL or a subprotocol.
    pub(super) fn open(url: &str, subprotocols: &Array, listener: &Listener) -> Result<Self, JsValue> {
        if StreamSocket::exists() {
            return StreamSocket::open(url, subprotocols, listener).map(Self::Stream);
        }
        EventSocket::open(url, subprotocols, listener).map(Self::Events)
    }

    /// Returns the number of bytes that the browser has been handed and has not written.
    pub(super) fn buffered(&self) -> u32 {
        match self {
            Self::Events(socket) => socket.buffered(),
            Self::Stream(socket) => socket.buffered(),
        }
    }

    /// Returns whether the browser still sends. It starts to close before it tells.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Events(socket) => socket.is_open(),
            Self::Stream(socket) => socket.is_open(),
        }
    }

    /// Returns the subprotocol that the server has chosen, or an empty string.
    pub(super) fn subprotocol(&self) -> String {
        match self {
            Self::Events(socket) => socket.subprotocol(),
            Self::Stream(socket) => socket.subprotocol(),
        }
    }

    /// Returns the extensions that the server has agreed to.
    pub(super) fn extensions(&self) -> String {
        match self {
            Self::Events(socket) => socket.extensions(),
            Self::Stream(socket) => socket.extensions(),
        }
    }

    /// Hands a message to the browser.
    pub(super) fn send(&self, payload: &Payload<'_>) -> Result<(), JsValue> {
        let (kind, bytes) = payload.parts();
        match (self, kind) {
            (Self::Events(socket), MessageKind::Text) => socket.send_text(Utf8Bytes::text_of(bytes)),
            (Self::Events(socket), MessageKind::Binary) => socket.send_binary(bytes),
            (Self::Stream(socket), MessageKind::Text) => {
                socket.send(&Utf8Bytes::text_of(bytes).into(), bytes.len())
            }
            // The stream looks at the bytes later.
            (Self::Stream(socket), MessageKind::Binary) => {
                socket.send(&Uint8Array::new_from_slice(bytes), bytes.len())
            }
        }
    }

    /// Returns when messages arrive.
    pub(super) fn arrival(&self) -> Arrival {
        match self {
            Self::Events(_) => Arrival::AtAnyTime,
            Self::Stream(_) => Arrival::OnRequest,
        }
    }

    /// Lets the next message arrive, if its arrival can be put off.
    pub(super) fn receive(&self) {
        if let Self::Stream(socket) = self {
            socket.receive();
        }
    }

    /// Starts the closing handshake, after all messages that were sent.
    pub(super) fn close(&self, code: CloseCode, reason: &str) -> Result<(), JsValue> {
        match self {
            Self::Events(socket) => socket.close(code, reason),
            Self::Stream(socket) => socket.close(code, reason),
        }
    }

    /// Stops all reports, and closes without a code, after all messages that were sent.
    pub(super) fn leave(&self) {
        match self {
            Self::Events(socket) => socket.leave(),
            Self::Stream(socket) => socket.leave(),
        }
    }
}
