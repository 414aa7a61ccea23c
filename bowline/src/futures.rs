//! The traits of the crate `futures`: `Stream` and `Sink`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use futures_sink::Sink;

use crate::error::{Error, TrySendError};
use crate::message::Message;
use crate::outlet::Outlet;
use crate::receive::Receive;
use crate::sender::Sender;
use crate::websocket::WebSocket;

/// The messages that are received, as [`recv`](WebSocket::recv) gives them. The stream ends with the connection, behind an
/// error if there is one.
///
/// `Sink` is implemented on [`FuturesSocket`] and [`MessageSink`] alone: on this, `SinkExt::send` and `close` would hide our own
/// methods behind a `&mut`.
impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.stream_ended {
            return Poll::Ready(None);
        }
        let received = ready!(this.connection().poll_next(cx, Receive::take_message));
        this.stream_ended = !matches!(received, Ok(Some(_)));
        Poll::Ready(received.transpose())
    }
}

impl FusedStream for WebSocket {
    fn is_terminated(&self) -> bool {
        self.stream_ended
    }
}

impl WebSocket {
    /// The connection as a `Stream` and a `Sink` of messages in one, for code that is generic over them.
    ///
    /// ```
    /// # async fn example(socket: bowline::WebSocket) -> Result<(), bowline::Error> {
    /// use futures_util::StreamExt;
    ///
    /// let (sink, stream) = socket.into_futures().split();
    /// // An echo. Replies gather while more messages are in memory, as they do in a loop of `recv` and `send`.
    /// stream.forward(sink).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_futures(self) -> FuturesSocket {
        let sink = self.sender().into_sink();
        FuturesSocket { socket: self, sink }
    }
}

impl Sender {
    /// This handle as a `Sink` of messages.
    pub fn into_sink(self) -> MessageSink {
        MessageSink { outlet: Outlet::new(self.into_connection()), pending: None }
    }
}

/// A connection as a `Stream` and a `Sink` of messages: see [`WebSocket::into_futures`].
///
/// Closing the sink closes the connection with 1000.
#[derive(Debug)]
pub struct FuturesSocket {
    socket: WebSocket,
    sink: MessageSink,
}

impl FuturesSocket {
    /// The connection. A message that the sink has taken and had no room for yet is lost; flush it before.
    pub fn into_inner(self) -> WebSocket {
        self.socket
    }
}

impl Stream for FuturesSocket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.socket).poll_next(cx)
    }
}

impl FusedStream for FuturesSocket {
    fn is_terminated(&self) -> bool {
        self.socket.is_terminated()
    }
}

impl Sink<Message> for FuturesSocket {
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

/// A `Sink` of messages: see [`Sender::into_sink`].
///
/// It takes one message more than there is room for, which goes out with the next one or a flush. Closing it closes the
/// connection with 1000, and waits for its end.
pub struct MessageSink {
    outlet: Outlet,
    pending: Option<Message>,
}

impl MessageSink {
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { outlet, pending } = self;
        if pending.is_none() {
            return Poll::Ready(outlet.connection().check_open());
        }
        outlet.poll_send(cx, |transmit| match pending.take() {
            Some(message) => transmit.accept(message.into()),
            None => Ok(()),
        })
    }
}

impl Sink<Message> for MessageSink {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.get_mut().poll_pending(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        match self.outlet.connection().try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => {
                self.pending = Some(message);
                Ok(())
            }
            Err(TrySendError::Closed(_)) => self.outlet.connection().check_open(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        if this.pending.is_some() {
            ready!(this.poll_pending(cx))?;
        }
        this.outlet.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        if this.pending.is_some() {
            ready!(this.poll_pending(cx))?;
        }
        this.outlet.poll_close(cx)
    }
}

impl fmt::Debug for MessageSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageSink").field("pending", &self.pending).finish_non_exhaustive()
    }
}
