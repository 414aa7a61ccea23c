//! The server: from a UDP socket to the requests of its connections.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::{
    Error, ErrorKind, Handler, Limits, RequestConnection, Requests, Server, ShutdownSummary, TlsInfo,
};
use quinn::crypto::rustls::HandshakeData;
use quinn::{ConnectionError, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, TokioRuntime};
use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use crate::driver::Driver;
use crate::exchange::{begin_request, receive_request};
use crate::session::{Session, SessionUse, connection_error, in_time, var_int};
use crate::stream::Side;
use crate::transport;
use crate::udp::endpoint_socket;
use crate::wire::{ErrorCode, Settings};

/// The number of QUIC handshakes in progress from which clients have to prove their addresses (RFC 9000
/// 8.1.2).
const RETRY_FROM: usize = 100;

/// The number of a client's bidirectional stream is a multiple of this (RFC 9000 2.1).
const REQUEST_STEP: u64 = 4;

/// A server of WebSockets over HTTP/3 (RFC 9220), with the options of a [`Server`].
///
/// A clone of the server can also serve TCP: browsers begin with HTTP/1.1 or HTTP/2, and learn of HTTP/3 from
/// the header `Alt-Svc` of a page (RFC 7838). With [`Server::fallback`], that header is one line. Answers of
/// [`Server::on_request`] carry it as well: by [`Acceptance::header`](bowline::Acceptance::header), or in the
/// response that rejects a request. Handlers, checks, the limits and [`Server::stats`] are the same, and one
/// shutdown ends both.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use bowline::{Server, WebSocket};
/// use bowline::rustls::ServerConfig;
/// use bowline_http3::Http3Server;
/// use http::Response;
/// use http::request::Parts;
/// use tokio::net::{TcpListener, UdpSocket};
///
/// async fn echo(mut socket: WebSocket) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     while let Some(message) = socket.recv().await? {
///         socket.send(message).await?;
///     }
///     Ok(())
/// }
///
/// # async fn example(config: Arc<ServerConfig>) -> std::io::Result<()> {
/// let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
/// let server = Server::new()
///     .tls(config)
///     .fallback(|_: Parts| async move {
///         let mut response = Response::new("hello");
///         response.headers_mut().insert("alt-svc", "h3=\":443\"; ma=86400".parse().unwrap());
///         response
///     })
///     .shutdown(ctrl_c, Duration::from_secs(10));
/// let (tcp, udp) = (TcpListener::bind("[::]:443").await?, UdpSocket::bind("[::]:443").await?);
/// let http3 = Http3Server::new(server.clone());
/// tokio::try_join!(server.serve(tcp, echo), http3.serve(udp, echo))?;
/// # Ok(())
/// # }
/// ```
///
/// # Limits
///
/// `Limits::max_streams` bounds the WebSockets and other requests of one connection, and
/// `Limits::stream_window` the unread bytes of each. A connection without a WebSocket, and without an answer
/// of the fallback, is ended after one to two handshake timeouts.
///
/// QUIC accepts up to 1 MiB of an answer at once, and the rest has to follow within the handshake timeout.
/// Accepted bytes arrive however slow the client is, as long as the client acknowledges some of them within
/// each `Limits::close_timeout`.
///
/// [`Server::connections`] and its siblings count HTTP/3 connections as those of HTTP/2. With one of them,
/// clients have to prove their addresses by a Retry, which takes a round trip, so forged packets use up none
/// of these limits. Without, that begins with 100 QUIC handshakes at a time, so a flood of forged packets
/// costs no more than those.
///
/// # Browsers
///
/// As of 2026, no browser opens WebSockets over HTTP/3 by default. Chromium does with
/// `--enable-features=EnableWebsocketsOverHttp3`.
#[derive(Clone, Debug)]
pub struct Http3Server {
    server: Server,
}

impl Http3Server {
    /// Creates a server with the options of `server`, which need [`Server::tls`].
    ///
    /// The TLS configuration is used with `h3` as the only protocol, and without early data.
    ///
    /// ```
    /// use bowline::Server;
    /// use bowline_http3::Http3Server;
    ///
    /// let server = Server::new();
    /// let http3 = Http3Server::new(server.clone());
    /// ```
    pub fn new(server: Server) -> Self {
        Self { server }
    }

    /// Serves WebSockets over HTTP/3: each is passed to one call of `handler`, as by [`Server::serve`].
    ///
    /// Returns after a [shutdown](Server::shutdown): clients receive a GOAWAY, and their WebSockets are
    /// closed.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) at once if an option is invalid, if
    /// [`Server::tls`] is not set, or if its configuration does not support TLS 1.3. Returns other errors if
    /// the socket can't be used.
    ///
    /// # Panics
    ///
    /// The future panics at once outside of a tokio runtime, and in a runtime without timers.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends all connections without Close frames.
    pub async fn serve<H: Handler<M>, M: 'static>(
        self,
        socket: UdpSocket,
        handler: H,
    ) -> io::Result<ShutdownSummary> {
        let Self { server } = self;
        let limits = Arc::new(server.limits().clone());
        let config = transport::server(server.tls_config(), &limits)?;
        let runtime = Arc::new(TokioRuntime);
        let socket = endpoint_socket(socket.into_std()?)?;
        let endpoint =
            Endpoint::new_with_abstract_socket(EndpointConfig::default(), Some(config), socket, runtime)?;
        let accepting = endpoint.clone();
        let close_timeout = limits.close_timeout;
        // Without this, the socket would outlive a future that is dropped: `RefuseOnDrop` waits for the end.
        let closing = CloseEndpointOnDrop(endpoint.clone());
        let served = server.serve_requests(handler, |requests| accept(accepting, requests, limits)).await;
        drop(closing);
        // The last packets have to leave. The peers may not answer them.
        let _ = timeout(close_timeout, endpoint.wait_idle()).await;
        served
    }
}

/// Accepts connections, until the UDP socket fails.
async fn accept(endpoint: Endpoint, requests: Requests, limits: Arc<Limits>) -> io::Result<()> {
    let handshakes = Arc::new(AtomicUsize::new(0));
    let _refusing = RefuseOnDrop(endpoint.clone());
    let limits_load = requests.limits_load();
    let mut queue = Queue {
        endpoint,
        limits_load,
        handshakes: Arc::clone(&handshakes),
        patience: limits.handshake_timeout,
        waiting: VecDeque::new(),
    };
    loop {
        let incoming = queue.next(requests.ready()).await?;
        let peer = incoming.remote_address();
        let (handshake, limits) = (Handshake::begin(&handshakes), Arc::clone(&limits));
        requests.begin(peer, |served| serve_connection(incoming, handshake, served, limits));
    }
}

/// The connections that have arrived and wait for their turn.
struct Queue {
    endpoint: Endpoint,
    limits_load: bool,
    handshakes: Arc<AtomicUsize>,
    /// The time after which a client has given up.
    patience: Duration,
    /// In order of arrival.
    waiting: VecDeque<(Instant, Incoming)>,
}

impl Queue {
    /// Returns the next connection, once `turn` is over. Meanwhile, others are answered: the queue of quinn
    /// would fill with forged packets.
    async fn next(&mut self, turn: impl Future<Output = ()>) -> io::Result<Incoming> {
        let (mut turn, mut is_over) = (pin!(turn), false);
        loop {
            if is_over {
                self.refuse_late();
                if let Some((_, incoming)) = self.waiting.pop_front() {
                    return Ok(incoming);
                }
            }
            let arrived = {
                let mut accepting = pin!(self.endpoint.accept());
                poll_fn(|cx| {
                    if !is_over && turn.as_mut().poll(cx).is_ready() {
                        is_over = true;
                        return Poll::Ready(None);
                    }
                    accepting.as_mut().poll(cx).map(Some)
                })
                .await
            };
            match arrived {
                None => {}
                Some(Some(incoming)) => self.receive(incoming),
                Some(None) => return Err(io::Error::other("the UDP socket has failed")),
            }
            consume_budget().await;
        }
    }

    /// Refuses the clients that have waited for too long, whose turns belong to others.
    fn refuse_late(&mut self) {
        while self.waiting.front().is_some_and(|(arrived, _)| arrived.elapsed() > self.patience) {
            let (_, incoming) = self.waiting.pop_front().expect("there is a first one");
            incoming.refuse();
        }
    }

    fn receive(&mut self, incoming: Incoming) {
        let needs_proof = self.limits_load || self.handshakes.load(Ordering::Relaxed) >= RETRY_FROM;
        if needs_proof && !incoming.remote_address_validated() {
            // An address that was not validated may be sent a Retry, so this does not fail.
            let _ = incoming.retry();
        } else if self.waiting.len() < transport::INCOMING {
            self.waiting.push_back((Instant::now(), incoming));
        } else {
            incoming.refuse();
        }
    }
}

/// Ends all connections, and lets the socket go with the last one.
struct CloseEndpointOnDrop(Endpoint);

impl Drop for CloseEndpointOnDrop {
    fn drop(&mut self) {
        self.0.close(var_int(ErrorCode::NO_ERROR), b"");
    }
}

/// Refuses new clients from when the server shuts down, so that they need not wait.
struct RefuseOnDrop(Endpoint);

impl Drop for RefuseOnDrop {
    fn drop(&mut self) {
        let endpoint = self.0.clone();
        let refusing = async move {
            // Until the endpoint is closed.
            while let Some(incoming) = endpoint.accept().await {
                incoming.refuse();
                consume_budget().await;
            }
        };
        // A runtime that ends takes the endpoint with it.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(refusing);
        }
    }
}

/// A QUIC handshake in progress.
struct Handshake(Arc<AtomicUsize>);

impl Handshake {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes the connection when the server ends its task.
struct CloseOnDrop(Arc<Session>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Serves a connection until it has ended. The error is that of a connection without a request, or of a
/// client that broke the protocol.
async fn serve_connection(
    incoming: Incoming,
    handshake: Handshake,
    served: RequestConnection,
    limits: Arc<Limits>,
) -> Result<(), Error> {
    let limit = limits.handshake_timeout;
    let connecting = async { incoming.accept().map_err(connection_error)?.await.map_err(connection_error) };
    let connecting = in_time(limit, "the QUIC handshake", connecting);
    let Some(quic) = unless_stopped(&served, connecting).await? else { return Ok(()) };
    drop(handshake);
    let (user, unused) = Session::begin(quic, limits.close_timeout);
    let _closing = CloseOnDrop(Arc::clone(&user.session));
    let settings = Settings {
        max_field_section_size: u64::try_from(limits.head_size).unwrap_or(u64::MAX),
        enable_connect_protocol: true,
    };
    let opening = Driver::open(&user.session, Side::Server, &settings);
    let opening = in_time(limit, "opening the control stream of HTTP/3", opening);
    let Some(driver) = unless_stopped(&served, opening).await? else { return Ok(()) };
    let tls = tls_info(&user.session.quic);
    let session = Arc::clone(&user.session);
    let accepting = accept_request(&session);
    let mut serving = Serving { driver, session, accepting, served, limits, tls, next: 0 };
    let reason = serving.serve(&user).await;
    if let Some(error) = reason {
        return serving.judge(error);
    }
    // RFC 9114 5.2: the client learns which requests were processed, and ends the others itself.
    // A client that leaves no room for it is not waited for.
    let _ = timeout(serving.limits.close_timeout, serving.driver.send_goaway(serving.next)).await;
    drop(user);
    let ended = serving.finish(unused.cancelled()).await;
    ended.map_or(Ok(()), |error| serving.judge(error))
}

/// Waits for `opening`, a part of the opening of a connection. Returns `None` if the server shuts down first.
async fn unless_stopped<T>(
    served: &RequestConnection,
    opening: impl Future<Output = Result<T, Error>>,
) -> Result<Option<T>, Error> {
    let (mut opening, mut stopped) = (pin!(opening), pin!(served.stopped()));
    poll_fn(|cx| match opening.as_mut().poll(cx) {
        Poll::Ready(opened) => Poll::Ready(opened.map(Some)),
        Poll::Pending => stopped.as_mut().poll(cx).map(|()| Ok(None)),
    })
    .await
}

/// A connection that is being served.
struct Serving {
    driver: Driver,
    session: Arc<Session>,
    accepting: Accepting,
    served: RequestConnection,
    limits: Arc<Limits>,
    tls: TlsInfo,
    /// The number of the first stream that was not accepted.
    next: u64,
}

/// A future of the next request stream.
type Accepting = Pin<Box<dyn Future<Output = Result<(SendStream, RecvStream), ConnectionError>> + Send>>;

/// The next event of a connection.
enum Event {
    Request(SendStream, RecvStream),
    /// The server shuts down, or the client makes no use of the connection.
    Stop,
    Ended(Error),
}

impl Serving {
    /// Serves requests, until the connection has ended or has to end. Returns the error in the first case.
    async fn serve(&mut self, user: &SessionUse) -> Option<Error> {
        let served = self.served.clone();
        let (mut stopped, mut unused) = (pin!(served.stopped()), pin!(served.unused()));
        loop {
            let event = poll_fn(|cx| {
                if stopped.as_mut().poll(cx).is_ready() || unused.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Stop);
                }
                self.poll(cx)
            });
            match event.await {
                Event::Request(send, receive) => {
                    self.next = u64::from(send.id()) + REQUEST_STEP;
                    let (send, receive) = begin_request(send, receive, user);
                    let (limits, tls) = (Arc::clone(&self.limits), self.tls.clone());
                    self.served.serve(receive_request(send, receive, limits, tls));
                    // A flood of requests must not keep the tasks from running that answer them.
                    yield_now().await;
                }
                Event::Stop => return None,
                Event::Ended(error) => return Some(error),
            }
        }
    }

    /// Waits for the end of the requests that were accepted, and rejects others.
    async fn finish(&mut self, all_ended: impl Future<Output = ()>) -> Option<Error> {
        let (served, session) = (self.served.clone(), Arc::clone(&self.session));
        // A page takes as long as the client receives it, if there is room for the client. There will be no
        // other page.
        let unused = async {
            loop {
                served.unused().await;
                if !served.is_kept() || !session.is_lingering() {
                    return;
                }
            }
        };
        let (mut unused, mut all_ended) = (pin!(unused), pin!(all_ended));
        loop {
            let event = poll_fn(|cx| {
                if all_ended.as_mut().poll(cx).is_ready() || unused.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Stop);
                }
                self.poll(cx)
            });
            match event.await {
                Event::Request(mut send, mut receive) => {
                    // RFC 9114 5.2: the client may repeat the request. This fails only if it has given up.
                    let _ = send.reset(var_int(ErrorCode::REQUEST_REJECTED));
                    let _ = receive.stop(var_int(ErrorCode::REQUEST_REJECTED));
                    yield_now().await;
                }
                Event::Stop => return None,
                Event::Ended(error) => return Some(error),
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(error) = self.driver.poll(cx) {
            return Poll::Ready(Event::Ended(error));
        }
        let Poll::Ready(accepted) = self.accepting.as_mut().poll(cx) else { return Poll::Pending };
        self.accepting = accept_request(&self.session);
        Poll::Ready(match accepted {
            Ok((send, receive)) => Event::Request(send, receive),
            Err(error) => Event::Ended(self.session.broken(error)),
        })
    }

    /// Decides if the end of the connection is an error: the WebSockets of the connection report it
    /// themselves.
    fn judge(&self, error: Error) -> Result<(), Error> {
        match error.kind() {
            ErrorKind::Protocol => Err(error),
            _ if self.next > 0 => Ok(()),
            _ => Err(error),
        }
    }
}

fn accept_request(session: &Session) -> Accepting {
    let quic = session.quic.clone();
    Box::pin(async move { quic.accept_bi().await })
}

/// Returns what the TLS handshake has told about the client.
fn tls_info(quic: &quinn::Connection) -> TlsInfo {
    let data = quic.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let name = data.and_then(|data| data.server_name);
    let certificates =
        quic.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    // RFC 9001 4.2: QUIC has no older version.
    TlsInfo::new(
        ProtocolVersion::TLSv1_3,
        name.as_deref(),
        certificates.map(|list| *list).unwrap_or_default(),
    )
}
