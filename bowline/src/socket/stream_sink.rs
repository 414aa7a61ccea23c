//! The traits of the `futures` crates.

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

/// With the feature `futures`: the messages, as [`recv`](WebSocket::recv) gives them.
///
/// The stream ends when `recv` would give `None`, and behind the first error. It is fused: from then on it gives `None`.
///
/// `WebSocket` is no `Sink`, as the methods of `SinkExt` would stand in the way of its own:
/// [`into_stream_sink`](WebSocket::into_stream_sink) makes one.
impl Stream for WebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item::<true>(cx)
    }
}

/// So that `futures::select!` takes it.
impl FusedStream for WebSocket {
    fn is_terminated(&self) -> bool {
        self.batch.stream_ended
    }
}

/// With the feature `futures`.
impl WebSocket {
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

    /// The same connection as a `Stream` and a `Sink` of messages: for `split`, `forward` and all else that the
    /// `futures` crates have for the two together.
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

/// With the feature `futures`.
impl Sender {
    /// The same handle as a `Sink` of messages.
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

/// A connection as a `Stream` and a `Sink` of messages: see [`WebSocket::into_stream_sink`].
///
/// The stream is that of [`WebSocket`], the sink works as [`SenderSink`] does.
pub struct WebSocketStreamSink {
    sink: SenderSink,
    socket: WebSocket,
}

impl WebSocketStreamSink {
    /// The connection itself again.
    ///
    /// Nothing is lost, unless a message waits for a [`MessageWriter`](crate::MessageWriter): see [`SenderSink`].
    pub fn into_inner(self) -> WebSocket {
        self.socket
    }
}

impl Stream for WebSocketStreamSink {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { sink, socket } = self.get_mut();
        let hold = socket.batch.hold();
        // `forward` flushes when it has to wait, and `split` holds the last message of a batch back until then.
        let poll = socket.poll_item::<false>(cx);
        sink.sender.hold = if poll.is_ready() { hold.or(socket.batch.hold()) } else { Hold::Never };
        poll
    }
}

/// So that `futures::select!` takes it.
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

/// A [`Sender`] as a `Sink` of messages: see [`Sender::into_sink`].
///
/// - It is ready when less than [`Limits::write_buffer`](crate::Limits::write_buffer) waits to be written, in the order of arrival
///   with all others who send. If it is polled no more, the others pass.
/// - A message that it took goes out without any further call, as with `send`. Only one that finds a
///   [`MessageWriter`](crate::MessageWriter) open, begun since the sink was ready, waits in the sink until it is polled
///   again.
/// - It is flushed when all was handed to the transport. `SinkExt::send` waits for that each time; `feed` and `forward`
///   don't, so that a batch leaves with one write.
/// - Closing it closes the connection with 1000 and waits for its end, as [`Sender::close`] does.
pub struct SenderSink {
    sender: PollSender,
    /// `start_send` may be called.
    ready: bool,
    /// What found a `MessageWriter` open.
    held: Option<Message>,
}

impl SenderSink {
    fn new(sender: PollSender) -> Self {
        Self { sender, ready: false, held: None }
    }

    /// Waits until nothing is held.
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
            let text = "the sink was not ready: start_send may be called once after each poll_ready";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
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
        // If the connection is closed, that is what is wanted.
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
