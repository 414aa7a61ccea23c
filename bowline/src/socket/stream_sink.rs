//! The connection as a `Stream` and a `Sink` of the `futures` crates.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use futures_sink::Sink;

use crate::connection::inbound::batch::Hold;
use crate::error::{Error, ErrorKind};
use crate::message::Message;
use crate::socket::poll_sender::PollSender;
use crate::socket::sender::Sender;
use crate::socket::websocket::WebSocket;

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
        self.get_mut().poll_item::<true>(cx)
    }
}

/// Required by `futures::select!`.
impl FusedStream for WebSocket {
    fn is_terminated(&self) -> bool {
        self.batch.stream_ended
    }
}

impl WebSocket {
    /// Returns the next item of the stream. `WRITES` says whether the replies to a batch are written before
    /// the stream waits.
    fn poll_item<const WRITES: bool>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, Error>>> {
        if self.batch.stream_ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.connection.poll_message::<WRITES>(cx, &mut self.batch)).transpose();
        self.batch.stream_ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }

    /// Converts the connection into a `Stream` and a `Sink` of messages, for the combinators of the `futures`
    /// crates such as `split` and `forward`. Those of sinks need the feature `sink` of `futures-util`.
    ///
    /// A [`Sender`] that was taken before the conversion has the methods that the two traits lack:
    /// [`ping`](Sender::ping), [`close`](Sender::close) with a code, [`close_frame`](Sender::close_frame) and
    /// others.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures_util::{SinkExt, StreamExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// # let (client, server) = bowline::pair();
    /// // An echo.
    /// let (sink, stream) = server.into_stream_sink().split();
    /// tokio::spawn(stream.forward(sink));
    ///
    /// let mut socket = client.into_stream_sink();
    /// socket.send("hello".into()).await?;
    /// assert_eq!(socket.next().await.transpose()?, Some("hello".into()));
    /// socket.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_stream_sink(self) -> WebSocketStreamSink {
        let sink = SenderSink::new(PollSender::new(Arc::clone(&self.connection), self.batch.hold()));
        WebSocketStreamSink { sink, socket: self }
    }
}

impl Sender {
    /// Converts the handle into a `Sink` of messages.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures_util::{StreamExt, stream};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// # let (client, mut server) = bowline::pair();
    /// let news = stream::iter(["one", "two"]).map(|text| Ok(text.into()));
    /// // `forward` closes the connection when the stream has ended.
    /// tokio::spawn(news.forward(client.sender().into_sink()));
    /// assert_eq!(server.recv().await?, Some("one".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_sink(self) -> SenderSink {
        SenderSink::new(PollSender::new(self.connection, Hold::Never))
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
    /// Returns the connection.
    ///
    /// No message is lost, unless one waits in the sink for a [`MessageWriter`](crate::MessageWriter): see
    /// [`SenderSink`].
    pub fn into_inner(self) -> WebSocket {
        self.socket
    }
}

impl Stream for WebSocketStreamSink {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { sink, socket } = self.get_mut();
        let hold = socket.batch.hold();
        // `forward` flushes before it waits. `split` holds back the last message of a batch until then.
        let poll = socket.poll_item::<false>(cx);
        sink.sender.hold = if poll.is_ready() { hold.or(socket.batch.hold()) } else { Hold::Never };
        poll
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
/// - **`poll_ready`** waits until fewer bytes than [`Limits::write_buffer`](crate::Limits::write_buffer) wait
///   to be written, in order of arrival, together with all other senders. A sink that is no longer polled is
///   skipped.
/// - **`start_send`** accepts a message, which is then written without any further call. There is one
///   exception: if a [`MessageWriter`](crate::MessageWriter) was opened after the sink became ready, the
///   message waits in the sink until the sink is polled again.
/// - **`poll_flush`** waits until the transport has taken all messages. `SinkExt::send` flushes each time;
///   `feed` and `forward` don't, so a batch leaves with one write.
/// - **`poll_close`** closes the connection with 1000 and waits for its end, as [`Sender::close`] does.
pub struct SenderSink {
    sender: PollSender,
    /// `start_send` may be called.
    ready: bool,
    /// The message that was accepted while a `MessageWriter` was open.
    held: Option<Message>,
}

impl SenderSink {
    fn new(sender: PollSender) -> Self {
        Self { sender, ready: false, held: None }
    }

    /// Waits until the sink holds no message.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self { sender, held, .. } = self;
        if held.is_some() {
            let (connection, hold) = (Arc::clone(&sender.connection), sender.hold);
            let outbound = ready!(sender.poll_room(cx))?;
            if let Some(message) = held.take() {
                connection.accept(outbound, message.into(), hold)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Sink<Message> for SenderSink {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let sink = self.get_mut();
        ready!(sink.poll_release(cx))?;
        drop(ready!(sink.sender.poll_room(cx))?);
        sink.ready = true;
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        let sink = self.get_mut();
        if !std::mem::take(&mut sink.ready) {
            let text = "the sink is not ready: call poll_ready before each start_send";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        // A flush that has begun does not cover this message.
        sink.sender.restart_flush();
        let connection = &sink.sender.connection;
        let outbound = connection.outbound();
        if let Some(error) = outbound.closed() {
            return Err(error.clone());
        }
        if outbound.has_writer() {
            drop(outbound);
            sink.held = Some(message);
            return Ok(());
        }
        connection.accept(outbound, message.into(), sink.sender.hold)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let sink = self.get_mut();
        ready!(sink.poll_release(cx))?;
        sink.sender.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let sink = self.get_mut();
        // An error means that the connection is closed, which is the purpose of the call.
        let _ = ready!(sink.poll_release(cx));
        sink.sender.poll_close(cx)
    }
}

impl fmt::Debug for WebSocketStreamSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebSocketStreamSink").field(&self.socket).finish()
    }
}

impl fmt::Debug for SenderSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = &self.sender.connection.addresses.peer;
        f.debug_struct("SenderSink").field("peer_addr", peer).finish_non_exhaustive()
    }
}
