//! The client's side of an HTTP/2 connection, which carries many WebSockets (RFC 8441), by h2.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use h2::client::{Builder, SendRequest};
use h2::ext::Protocol;
use h2::{Ping, PingPong};
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, UPGRADE};
use http::uri::Authority;
use http::{Method, Request, Response, Uri, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::handshake::{BODY_KEPT, hide_secrets, refused};
use crate::client::request::{Attempt, Offer};
use crate::client::url::Url;
use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::Deadline;
use crate::limits::Limits;
use crate::socket::WebSocket;
use crate::transport::alpn::Alpn;
use crate::transport::byte_stream::ByteStream;
use crate::transport::http2::{CONNECTION_WINDOW, FRAME_BUDGET, Http2Receive, Http2Send, Piece, SEND_BUFFER};
use crate::transport::http2_io::{Gathered, Http2Io};
use crate::transport::{Addresses, Transport};

/// The version of HTTP over which a [`Connector`](crate::Connector) opens WebSockets. Available with the
/// feature `http2`.
///
/// [`Connector::http_version`](crate::Connector::http_version) sets it.
///
/// ```
/// use bowline::{Connector, HttpVersion};
///
/// let connector = Connector::new().http_version(HttpVersion::Http2);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpVersion {
    /// HTTP/1.1 (RFC 6455 4), with a TCP connection for each WebSocket. This is the default.
    #[default]
    Http1,
    /// HTTP/2 (RFC 8441): over TLS by ALPN, in clear text with prior knowledge. Connecting fails if the
    /// server does not speak HTTP/2, or does not accept WebSockets over HTTP/2.
    Http2,
    /// The server's choice by ALPN over TLS, and HTTP/1.1 in clear text. If the server chooses HTTP/2 but
    /// does not accept WebSockets over HTTP/2, another connection is opened with HTTP/1.1.
    Automatic,
}

impl HttpVersion {
    /// Returns the protocols to offer by ALPN (RFC 7301), the preferred one first.
    pub(crate) fn offered(self) -> &'static [Alpn] {
        match self {
            Self::Http1 => &[Alpn::Http1],
            Self::Http2 => &[Alpn::Http2],
            Self::Automatic => &[Alpn::Http2, Alpn::Http1],
        }
    }

    /// Returns `true` if HTTP/1.1 is not acceptable.
    pub(crate) fn is_only_http2(self) -> bool {
        self == Self::Http2
    }

    /// Returns `true` if HTTP/1.1 is acceptable where a server accepts no WebSockets over HTTP/2.
    pub(crate) fn falls_back(self) -> bool {
        self == Self::Automatic
    }
}

/// An HTTP/2 connection to a server, for many WebSockets (RFC 8441). Available with the feature `http2`.
///
/// [`Connector::connect_http2`](crate::Connector::connect_http2) opens it. A clone is another handle to the
/// same connection. The connection ends when all handles and all of its WebSockets are gone. All WebSockets
/// have the options of the [`Connector`](crate::Connector).
///
/// ```no_run
/// # async fn example() -> Result<(), bowline::Error> {
/// let connection = bowline::Connector::new().connect_http2("wss://example.com").await?;
/// let (mut news, _) = connection.connect("/news").await?;
/// println!("{:?}", news.recv().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Http2Connection(Arc<Http2State>);

struct Http2State {
    offer: Offer,
    url: Url,
    addresses: Addresses,
    requests: SendRequest<Piece>,
    /// A permit for each stream that the server still has room for.
    permits: Arc<Semaphore>,
    ended: ConnectionEnd,
    /// The guard that handles and WebSockets share. Dropping the last one tells the connection's task.
    in_use: Arc<DropGuard>,
}

/// The room that the server has for streams (RFC 9113 5.1.2).
///
/// h2 would queue a stream that has no room yet, but would not say when its request leaves, and a handshake's
/// time begins then.
struct StreamRoom {
    permits: Arc<Semaphore>,
    /// The number of permits, taken or not.
    total: usize,
}

impl StreamRoom {
    /// Sets the number of streams that the server allows. Room that is taken back while a stream uses it
    /// lasts until the end of that stream.
    fn resize(&mut self, streams: usize) {
        let streams = streams.min(Semaphore::MAX_PERMITS);
        if streams > self.total {
            self.permits.add_permits(streams - self.total);
            self.total = streams;
        } else if streams < self.total {
            self.total -= self.permits.forget_permits(self.total - streams);
        }
    }
}

/// The right to open one stream.
struct ReservedStream {
    requests: SendRequest<Piece>,
    permit: OwnedSemaphorePermit,
}

/// The end of the connection.
#[derive(Clone)]
struct ConnectionEnd {
    /// The reason, once the connection has ended.
    error: Arc<OnceLock<Error>>,
    /// A channel whose sender is dropped at the end of the connection.
    open: watch::Receiver<()>,
}

impl Http2Connection {
    /// Begins an HTTP/2 connection on a stream, and waits for the server's settings.
    pub(crate) async fn handshake(
        offer: Offer,
        url: Url,
        stream: ByteStream,
        addresses: Addresses,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let (io, gathered) = Http2Io::new(stream);
        let mut handshake = pin!(builder(&offer.config.limits).handshake(io));
        let opening = async {
            let begun = poll_fn(|cx| gathered.poll(handshake.as_mut(), cx)).await;
            let (requests, mut connection) = begun.map_err(broken)?;
            let mut ping_pong = connection.ping_pong().expect("the ping-pong handle was not taken before");
            settled(&requests, &mut connection, &gathered, &mut ping_pong).await?;
            Ok((requests, connection))
        };
        let (requests, connection) =
            deadline.bound("waiting for the server's settings of HTTP/2", opening).await?;
        let error = Arc::new(OnceLock::new());
        let (opened, open) = watch::channel(());
        let ended = ConnectionEnd { error: Arc::clone(&error), open };
        let room = StreamRoom { permits: Arc::new(Semaphore::new(0)), total: 0 };
        let permits = Arc::clone(&room.permits);
        let unused = CancellationToken::new();
        let in_use = Arc::new(unused.clone().drop_guard());
        let close_timeout = offer.config.limits.close_timeout;
        let mut task = Http2Task { connection, gathered, room, unused, close_timeout, error, opened };
        tokio::spawn(async move {
            let reason = task.drive().await;
            task.end(reason);
        });
        let state = Http2State { offer, url, addresses, requests, permits, ended, in_use };
        Ok(Self(Arc::new(state)))
    }

    /// Returns `true` if the server accepts WebSockets (RFC 8441 3).
    pub(crate) fn accepts_websockets(&self) -> bool {
        self.0.requests.is_extended_connect_protocol_enabled()
    }

    /// Returns an error if the server does not accept WebSockets.
    pub(crate) fn check_settings(&self) -> Result<(), Error> {
        if self.accepts_websockets() {
            return Ok(());
        }
        let text = "the server does not accept WebSockets over HTTP/2, as it has not set \
                    SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3): use HTTP/1.1 with this server";
        Err(Error::new(ErrorKind::Handshake, text))
    }

    /// Opens a WebSocket. Returns the WebSocket, and the head of the server's response.
    ///
    /// `path` begins with `/` and may have a query. The method may be called many times at once. Calls wait
    /// in order, without a time limit, until the server allows another stream. [`Limits::handshake_timeout`]
    /// begins after that.
    ///
    /// ```no_run
    /// # async fn example(connection: bowline::Http2Connection) -> Result<(), bowline::Error> {
    /// let (chat, response) = connection.connect("/chat?room=1").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors that [`Connector::connect`](crate::Connector::connect) returns. Returns
    /// [`ErrorKind::Disconnected`] or [`ErrorKind::Io`] if the connection has ended or is about to end. In
    /// that case, open another connection.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends the attempt and leaves the connection as it is.
    pub async fn connect(&self, path: impl fmt::Display) -> Result<(WebSocket, Response<()>), Error> {
        let url = self.0.url.clone().with_target(&path.to_string())?;
        let mut attempt = self.0.offer.prepare(url)?;
        // A box keeps the caller's future small for the rest of the connection's life.
        Box::pin(async move {
            let room = self.reserve().await?;
            // The time of the handshake begins when the server has room.
            attempt.deadline = Deadline::after(attempt.handshake.limits().handshake_timeout);
            self.exchange_in(room, attempt).await
        })
        .await
    }

    /// Sends the request as soon as the server has room for it, checks the response, and opens the
    /// connection.
    pub(crate) async fn exchange(&self, attempt: Attempt) -> Result<(WebSocket, Response<()>), Error> {
        let room = attempt.deadline.bound("waiting for room on the server", self.reserve()).await?;
        self.exchange_in(room, attempt).await
    }

    async fn exchange_in(
        &self,
        room: ReservedStream,
        attempt: Attempt,
    ) -> Result<(WebSocket, Response<()>), Error> {
        let Http2State { addresses, in_use, .. } = &*self.0;
        let Attempt { url, request, handshake, deadline, steps } = attempt;
        let ReservedStream { mut requests, permit } = room;
        let request = extended_connect(&url, request);
        let (response, send) = requests.send_request(request, false).map_err(|error| self.why(error))?;
        let answer = async { response.await.map_err(|error| self.why(error)) };
        let response = deadline.bound("waiting for the server's response", answer).await?;
        let max_headers = handshake.limits().max_headers;
        if response.headers().len() > max_headers {
            let text = format!("the response has more than {max_headers} headers (Limits::max_headers)");
            return Err(Error::new(ErrorKind::Limit, text));
        }
        let agreed = match handshake.conclude(&response) {
            Ok(agreed) => agreed,
            Err(text) => {
                let (head, mut body) = response.into_parts();
                let mut start = Vec::new();
                let reading = async {
                    while start.len() < BODY_KEPT {
                        let Some(Ok(data)) = body.data().await else { break };
                        let _ = body.flow_control().release_capacity(data.len());
                        start.extend_from_slice(&data[..data.len().min(BODY_KEPT - start.len())]);
                    }
                    Ok(())
                };
                // The bytes that arrive before the deadline are enough for an error.
                let _ = deadline.bound("reading the refusal", reading).await;
                return Err(refused(text, &Response::from_parts(head, ()), start.into()));
            }
        };
        let (mut head, receive) = response.into_parts();
        hide_secrets(&mut head.headers);
        head.extensions.insert(steps.upgraded());
        let send = Http2Send::new(send, Box::new((permit, Arc::clone(in_use))));
        let receive = Http2Receive::new(receive);
        let transport = Transport::http2(receive, send, *addresses);
        let socket = handshake.complete(transport, &[], agreed);
        Ok((socket, Response::from_parts(head, ())))
    }

    /// Waits until the server has room for another stream.
    async fn reserve(&self) -> Result<ReservedStream, Error> {
        let Ok(permit) = Arc::clone(&self.0.permits).acquire_owned().await else {
            // The semaphore was closed at the end of the connection.
            return Err(self.closed().await);
        };
        let mut requests = self.0.requests.clone();
        poll_fn(|cx| requests.poll_ready(cx)).await.map_err(|error| self.why(error))?;
        Ok(ReservedStream { requests, permit })
    }

    /// Waits until the connection has ended, and returns the reason.
    ///
    /// ```no_run
    /// # async fn example(connection: bowline::Http2Connection) {
    /// println!("{}", connection.closed().await);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future changes nothing.
    pub async fn closed(&self) -> Error {
        let mut open = self.0.ended.open.clone();
        // The channel carries no values: an error marks its end.
        while open.changed().await.is_ok() {}
        let gone =
            || Error::new(ErrorKind::Disconnected, "the runtime of the HTTP/2 connection was shut down");
        self.0.ended.error.get().cloned().unwrap_or_else(gone)
    }

    /// Returns `true` if the connection has ended.
    ///
    /// ```no_run
    /// # async fn example(connection: bowline::Http2Connection) {
    /// assert!(!connection.is_closed());
    /// # }
    /// ```
    pub fn is_closed(&self) -> bool {
        self.0.ended.open.has_changed().is_err()
    }

    /// Returns the reason why no WebSocket could be opened.
    fn why(&self, error: h2::Error) -> Error {
        // The error of the connection says more than that of a stream.
        self.0.ended.error.get().cloned().unwrap_or_else(|| broken(error))
    }
}

impl fmt::Debug for Http2Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Http2State { offer, addresses, .. } = &*self.0;
        let mut debug = f.debug_struct("Http2Connection");
        debug.field("offer", offer).field("peer_addr", &addresses.peer).finish_non_exhaustive()
    }
}

/// The task of a connection.
struct Http2Task {
    connection: h2::client::Connection<Http2Io<ByteStream>, Piece>,
    gathered: Gathered<ByteStream>,
    room: StreamRoom,
    /// Cancelled when nobody uses the connection any more.
    unused: CancellationToken,
    close_timeout: Duration,
    error: Arc<OnceLock<Error>>,
    /// The sender of [`ConnectionEnd::open`], whose drop tells of the end.
    opened: watch::Sender<()>,
}

impl Http2Task {
    /// Drives the connection, and returns the reason for its end.
    async fn drive(&mut self) -> Error {
        let Self { connection, gathered, room, unused, .. } = self;
        let mut ended = pin!(poll_fn(|cx| {
            let ended = gathered.poll(Pin::new(&mut *connection), cx);
            room.resize(connection.max_concurrent_send_streams());
            ended
        }));
        let ended = match unused.run_until_cancelled(ended.as_mut()).await {
            Some(ended) => Ok(ended),
            // Unused, the connection ends by itself, unless the server does not read the GOAWAY.
            None => timeout(self.close_timeout, ended).await,
        };
        match ended {
            Ok(Ok(())) => Error::new(ErrorKind::Disconnected, "the HTTP/2 connection has ended"),
            Ok(Err(error)) => broken(error),
            Err(_) => Error::new(
                ErrorKind::Timeout,
                "the server did not let the HTTP/2 connection end within Limits::close_timeout",
            ),
        }
    }

    /// Tells handles and WebSockets of the end.
    fn end(self, reason: Error) {
        let set = self.error.set(reason);
        debug_assert!(set.is_ok(), "the connection has one task");
        drop(self.opened);
        self.room.permits.close();
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    let head_size = u32::try_from(limits.head_size).unwrap_or(u32::MAX);
    builder
        .enable_push(false)
        .max_header_list_size(head_size)
        .initial_window_size(limits.initial_window_size())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(FRAME_BUDGET)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// Drives a new connection until the server's settings are known.
///
/// The settings come before all other frames (RFC 9113 3.4), and so before the answer to a ping.
async fn settled(
    requests: &SendRequest<Piece>,
    connection: &mut h2::client::Connection<Http2Io<ByteStream>, Piece>,
    gathered: &Gathered<ByteStream>,
    ping_pong: &mut PingPong,
) -> Result<(), Error> {
    let mut pong = pin!(ping_pong.ping(Ping::opaque()));
    poll_fn(|cx| {
        if let Poll::Ready(ended) = gathered.poll(Pin::new(&mut *connection), cx) {
            let ended = ended.map_err(broken).and_then(|()| {
                let text = "the server closed the HTTP/2 connection before it was used";
                Err(Error::new(ErrorKind::Handshake, text))
            });
            return Poll::Ready(ended);
        }
        if requests.is_extended_connect_protocol_enabled() {
            return Poll::Ready(Ok(()));
        }
        pong.as_mut().poll(cx).map_ok(drop).map_err(broken)
    })
    .await
}

/// Turns the request of a handshake into an extended CONNECT (RFC 8441 4).
fn extended_connect(url: &Url, request: Request<()>) -> Request<()> {
    let (mut head, ()) = request.into_parts();
    head.method = Method::CONNECT;
    head.version = Version::HTTP_2;
    head.extensions.insert(Protocol::from_static("websocket"));
    // RFC 8441 5: the pseudo-headers replace these headers.
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY] {
        head.headers.remove(name);
    }
    let mut uri = url.http_uri().into_parts();
    // The value of `Connector::host`, if it is an authority.
    let host = head.headers.remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    uri.authority = authority.or(uri.authority);
    head.uri = Uri::from_parts(uri).expect("one authority was replaced by another");
    Request::from_parts(head, ())
}

fn broken(error: h2::Error) -> Error {
    let kind = if error.is_io() { ErrorKind::Io } else { ErrorKind::Disconnected };
    let what = if error.is_go_away() {
        "the server ended the HTTP/2 connection"
    } else if error.is_reset() {
        "the server reset the stream of the opening handshake"
    } else {
        "the HTTP/2 connection failed"
    };
    let text = error.reason().map_or(what.to_owned(), |reason| format!("{what} with {reason:?}"));
    Error::with_source(kind, text, error)
}
