//! The connection as a `Stream` and a `Sink` of the `futures` crates.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use futures_sink::Sink;

use super::connection::Connection;
use super::operations::{self, Ending, Sending};
use super::sender::Sender;
use super::turns::WaiterKind;
use super::websocket::WebSocket;
use crate::error::{Error, ErrorKind};
use crate::message::Message;

/// A stream of the messages that [`recv`](WebSocket::recv) returns.
///
/// The stream ends when `recv` would return `None`, and after the first error. It is fused: after the end, it
/// keeps returning `None`.
///
/// `WebSocket` is not a `Sink`, because the methods of `SinkExt` would shadow its own. Use
/// [`into_stream_sink`](WebSocket::into_stream_sink) for a type that is both.
impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let socket = self.get_mut();
        if socket.stream_ended {
            return Poll::Ready(None);
        }
        let item = ready!(operations::poll_message(&socket.connection, cx)).transpose();
        socket.stream_ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

/// Required by `futures::select!`.
impl FusedStream for WebSocket {
    fn is_terminated(&self) -> bool {
        self.stream_ended
    }
}

impl WebSocket {
    /// Converts the connection into a `Stream` and a `Sink` of messages, for the combinators of the `futures`
    /// crates such as `split` and `forward`.
    ///
    /// A [`Sender`] that was taken before the conversion has the methods that the two traits lack:
    /// [`close`](Sender::close) with a code, [`close_frame`](Sender::close_frame) and others.
    pub fn into_stream_sink(self) -> WebSocketStreamSink {
        WebSocketStreamSink { sink: SenderSink::new(Arc::clone(&self.connection)), socket: self }
    }
}

impl Sender {
    /// Converts the handle into a `Sink` of messages.
    pub fn into_sink(self) -> SenderSink {
        SenderSink::new(self.connection)
    }
}

/// A connection as a `Stream` and a `Sink` of messages, as returned by [`WebSocket::into_stream_sink`].
///
/// The `Stream` behaves like the one of [`WebSocket`], and the `Sink` like [`SenderSink`].
pub struct WebSocketStreamSink {
    sink: SenderSink,
    socket: WebSocket,
}

impl WebSocketStreamSink {
    /// Returns the connection. No message is lost.
    pub fn into_inner(self) -> WebSocket {
        self.socket
    }
}

impl Stream for WebSocketStreamSink {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.socket).poll_next(cx)
    }
}

/// Required by `futures::select!`.
impl FusedStream for WebSocketStreamSink {
    fn is_terminated(&self) -> bool {
        self.socket.is_terminated()
    }
}

impl Sink<Message> for WebSocketStreamSink {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sink).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        Pin::new(&mut self.sink).start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sink).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sink).poll_close(cx)
    }
}

/// A [`Sender`] as a `Sink` of messages, as returned by [`Sender::into_sink`].
///
/// - **`poll_ready`** waits until the browser has fewer bytes to write than
///   [`Limits::write_buffer`](crate::Limits::write_buffer), in order of arrival, together with all other
///   senders. A sink that is no longer polled is skipped.
/// - **`start_send`** hands a message to the browser, which writes it without any further call.
/// - **`poll_flush`** does nothing, since the browser has all messages. [`Sender::flush`] waits until the
///   browser has written them, which takes at least a timer of 1 ms.
/// - **`poll_close`** closes the connection with 1000 and waits for its end, as [`Sender::close`] does.
pub struct SenderSink {
    sending: Sending,
    /// `start_send` may be called.
    ready: bool,
    /// The closing handshake that was started here.
    ending: Option<Ending>,
}

impl SenderSink {
    fn new(connection: Arc<Connection>) -> Self {
        Self { sending: Sending::new(connection, WaiterKind::HandPolled), ready: false, ending: None }
    }
}

impl Sink<Message> for SenderSink {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let sink = self.get_mut();
        ready!(sink.sending.poll_room(cx))?;
        sink.ready = true;
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        let sink = self.get_mut();
        if !std::mem::take(&mut sink.ready) {
            let text = "the sink is not ready: call poll_ready before each start_send";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        sink.sending.send(&message.into())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let sink = self.get_mut();
        if sink.ending.is_none() {
            sink.ending = Some(Ending::begin(&sink.sending.connection)?);
        }
        sink.ending.as_mut().map_or(Poll::Ready(Ok(())), |ending| ending.poll(cx))
    }
}

impl fmt::Debug for WebSocketStreamSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebSocketStreamSink").field(&self.socket).finish()
    }
}

impl fmt::Debug for SenderSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderSink").finish_non_exhaustive()
    }
}
