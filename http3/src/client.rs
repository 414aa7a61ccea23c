//! The client: from a URL to many WebSockets on one HTTP/3 connection.

use std::fmt::{self, Display};
use std::future::{Future, pending, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bowline::{
    ClientHandshake, ConnectProtocol, Connector, Error, ErrorKind, HandshakeTimes, Limits, VerifiedHandshake,
    WebSocket,
};
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use quinn::Endpoint;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::dial::{Dialled, dial, host_of, resolve};
use crate::driver::Driver;
use crate::head::{HeadError, HeadLimits, decode_response, encode_request, is_of_connection};
use crate::session::{Session, SessionUse, in_time};
use crate::stream::{Http3Stream, ReceiveHalf, SendHalf, Side, Unreceived, violation_of};
use crate::transport;
use crate::wire::{ErrorCode, Settings};

/// The number of bytes of a refusal's body that its error keeps.
const BODY_KEPT: u64 = 1024;

/// Connects to a WebSocket server over HTTP/3, with the default options.
///
/// The URL has the scheme `wss` or `https`. The connection carries this WebSocket alone, and ends with it.
/// For several WebSockets on one connection, and for other options, see [`Http3Connection`].
///
/// ```no_run
/// # async fn example() -> Result<(), bowline::Error> {
/// let mut socket = bowline_http3::connect("wss://example.com/feed").await?;
/// socket.send("hello").await?;
/// println!("{:?}", socket.recv().await?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns the errors of [`Http3Connection::open`] and [`Http3Connection::connect`].
///
/// # Panics
///
/// The future panics outside of a tokio runtime, and in a runtime without timers or I/O.
///
/// # Cancel safety
///
/// This function is cancel safe. Dropping the future ends the attempt and closes its connection.
pub async fn connect(url: impl Display) -> Result<WebSocket, Error> {
    let url = url.to_string();
    // A box keeps the caller's future small for the rest of the connection's life.
    Box::pin(async move {
        let connector = Connector::new();
        let target = Target::parse(&connector, &url)?;
        let path = target.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let connection = Http3Connection::begin(connector, target, Addresses::OfHost).await?;
        let limit = connection.0.limits.handshake_timeout;
        // The server may allow no stream, for which `Http3Connection::connect` would wait.
        let (socket, _) = in_time(limit, "the opening handshake", connection.connect(path)).await?;
        Ok(socket)
    })
    .await
}

/// An HTTP/3 connection to a server, for many WebSockets (RFC 9220).
///
/// A clone is another handle to the same connection. The connection ends when all handles and all of its
/// WebSockets are gone. All WebSockets have the options of the [`Connector`]: its headers, subprotocols,
/// limits, TLS configuration and so on. `Connector::http_version` and `Connector::redirects` have no effect
/// here.
///
/// The connection survives a change of the client's address, such as from one network to another (RFC 9000
/// 9).
///
/// ```no_run
/// use bowline::Connector;
/// use bowline_http3::Http3Connection;
///
/// # async fn example() -> Result<(), bowline::Error> {
/// let connection = Http3Connection::open(&Connector::new(), "wss://example.com").await?;
/// let (mut news, _) = connection.connect("/news").await?;
/// let (chat, _) = connection.connect("/chat?room=1").await?;
/// chat.send("hello").await?;
/// println!("{:?}", news.recv().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Http3Connection(Arc<ClientState>);

struct ClientState {
    connector: Connector,
    /// The URL up to its path.
    server: String,
    limits: Limits,
    local: Option<SocketAddr>,
    /// The settings of the server.
    settings: Settings,
    times: HandshakeTimes,
    user: SessionUse,
    news: watch::Receiver<News>,
}

/// The news of a connection.
#[derive(Clone, Default)]
struct News {
    /// The server accepts no more requests (RFC 9114 5.2).
    goaway: bool,
    /// The reason of the end, once the connection has ended.
    ended: Option<Error>,
}

impl Http3Connection {
    /// Opens an HTTP/3 connection for many WebSockets, and waits for the server's settings.
    ///
    /// The URL has the scheme `wss` or `https`; its path is ignored. The addresses of the host are tried one
    /// after another, 250 ms apart, and the first that answers is used. The TLS configuration is that of
    /// `Connector::tls`, with `h3` as the only protocol and without early data.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use bowline::Connector;
    /// use bowline_http3::Http3Connection;
    ///
    /// # async fn example() -> Result<(), bowline::Error> {
    /// let connector = Connector::new().header("authorization", "Bearer 1234").subprotocols(["chat.v1"]);
    /// let connection = Http3Connection::open(&connector, "wss://example.com").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the URL or an option is invalid, if the TLS configuration
    ///   does not support TLS 1.3, or if a proxy is on the way. No proxy carries HTTP/3, and none is
    ///   bypassed: see [`Proxy::none`](bowline::Proxy::none).
    /// - Returns [`ErrorKind::Timeout`] if there is no connection within [`Limits::handshake_timeout`]. Some
    ///   networks block UDP, so an application should then use another version of HTTP.
    /// - Returns [`ErrorKind::Io`] if the name can't be resolved, or TLS fails.
    /// - Returns [`ErrorKind::Handshake`] if the server does not accept WebSockets over HTTP/3.
    ///
    /// # Panics
    ///
    /// The future panics outside of a tokio runtime, and in a runtime without timers or I/O.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends the attempt.
    pub async fn open(connector: &Connector, url: impl Display) -> Result<Self, Error> {
        let (connector, url) = (connector.clone(), url.to_string());
        Box::pin(async move {
            let target = Target::parse(&connector, &url)?;
            Self::begin(connector, target, Addresses::OfHost).await
        })
        .await
    }

    /// Opens an HTTP/3 connection to these addresses, instead of those of the URL's host.
    ///
    /// The addresses are tried as [`open`](Self::open) tries those of a host. The certificate and the
    /// requests are still those of the URL. Applications that resolve names themselves use this method, and
    /// those that need a certain family of addresses.
    ///
    /// ```no_run
    /// use std::net::SocketAddr;
    ///
    /// use bowline::Connector;
    /// use bowline_http3::Http3Connection;
    ///
    /// # async fn example() -> Result<(), bowline::Error> {
    /// let addresses = [SocketAddr::from(([192, 0, 2, 1], 443))];
    /// let connection =
    ///     Http3Connection::open_at(&Connector::new(), "wss://example.com", addresses).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](Self::open), and [`ErrorKind::InvalidInput`] if there is no address.
    ///
    /// # Panics
    ///
    /// The future panics outside of a tokio runtime, and in a runtime without timers or I/O.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends the attempt.
    pub async fn open_at(
        connector: &Connector,
        url: impl Display,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Self, Error> {
        let (connector, url) = (connector.clone(), url.to_string());
        let addresses: Vec<SocketAddr> = addresses.into_iter().collect();
        Box::pin(async move {
            let target = Target::parse(&connector, &url)?;
            if addresses.is_empty() {
                return Err(Error::new(ErrorKind::InvalidInput, "there is no address to connect to"));
            }
            Self::begin(connector, target, Addresses::Given(addresses)).await
        })
        .await
    }

    async fn begin(connector: Connector, target: Target, addresses: Addresses) -> Result<Self, Error> {
        let start = Instant::now();
        let Target { server, uri, limits } = target;
        if let Some(proxy) = connector.proxy_to(&server)? {
            let text = format!(
                "HTTP/3 can't pass the proxy {proxy}: use another version of HTTP, or Proxy::none() if the \
                 server can be reached directly"
            );
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let config = transport::client(&*connector.tls_config()?, &limits)?;
        let limit = limits.handshake_timeout;
        let opening = async {
            let (addresses, resolved) = match addresses {
                Addresses::Given(addresses) => (addresses, None),
                Addresses::OfHost => {
                    let addresses = resolve(&uri).await?;
                    // A host that is an address is no name.
                    let named = host_of(&uri).parse::<IpAddr>().is_err();
                    (addresses, named.then(|| start.elapsed()))
                }
            };
            let Dialled { endpoint, quic } = dial(&uri, addresses, config).await?;
            let connected = start.elapsed();
            let (user, unused) = Session::begin(quic, limits.close_timeout);
            let settings = Settings {
                max_field_section_size: u64::try_from(limits.head_size).unwrap_or(u64::MAX),
                enable_connect_protocol: false,
            };
            let mut driver = Driver::open(&user.session, Side::Client, &settings).await?;
            let settings = settled(&mut driver).await?;
            // QUIC and TLS have one handshake (RFC 9001 4).
            let times =
                HandshakeTimes::new(start.elapsed()).with_connected(connected).with_secured(connected);
            let times = resolved.map_or(times, |resolved| times.with_resolved(resolved));
            Ok((endpoint, user, unused, driver, settings, times))
        };
        let (endpoint, user, unused, driver, settings, times) =
            timeout(limit, opening).await.unwrap_or_else(|_| {
                let text = format!(
                    "connecting over HTTP/3 took longer than {limit:?} (Limits::handshake_timeout): the \
                     server may not offer HTTP/3, or UDP is blocked on the way"
                );
                Err(Error::new(ErrorKind::Timeout, text))
            })?;
        // RFC 9220 3, RFC 8441 3: without the setting, the server does not know the request.
        if !settings.enable_connect_protocol {
            user.session.close();
            let text = "the server does not accept WebSockets over HTTP/3, as it has not set \
                        SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 9220 3): use another version of HTTP";
            return Err(Error::new(ErrorKind::Handshake, text));
        }
        let local = endpoint.local_addr().ok();
        let (sender, news) = watch::channel(News::default());
        let task = ConnectionTask {
            driver,
            session: Arc::clone(&user.session),
            unused,
            news: sender,
            endpoint,
            close_timeout: limits.close_timeout,
        };
        tokio::spawn(task.run());
        Ok(Self(Arc::new(ClientState { connector, server, limits, local, settings, times, user, news })))
    }

    /// Returns the times of the steps of opening this connection.
    ///
    /// [`HandshakeTimes::connected`] and [`HandshakeTimes::secured`] are the end of the QUIC handshake, and
    /// [`HandshakeTimes::upgraded`] is the arrival of the server's settings. The response of
    /// [`connect`](Self::connect) has the times of its own handshake.
    ///
    /// ```no_run
    /// # async fn example(connection: bowline_http3::Http3Connection) -> Result<(), bowline::Error> {
    /// let opening = connection.times();
    /// println!("QUIC took {:?}, all {:?}", opening.connected(), opening.upgraded());
    /// # Ok(())
    /// # }
    /// ```
    pub fn times(&self) -> HandshakeTimes {
        self.0.times
    }

    /// Opens a WebSocket. Returns the WebSocket, and the head of the server's response.
    ///
    /// The extensions of the response contain the [`HandshakeTimes`] of this WebSocket, which begin with the
    /// call.
    ///
    /// `path` begins with `/` and may have a query. The method may be called many times at once. Calls wait,
    /// without a time limit, until the server allows another stream. [`Limits::handshake_timeout`] begins
    /// after that.
    ///
    /// ```no_run
    /// # async fn example(connection: bowline_http3::Http3Connection) -> Result<(), bowline::Error> {
    /// let (chat, response) = connection.connect("/chat?room=1").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the path is invalid, or if the request is larger than the
    ///   server accepts.
    /// - Returns [`ErrorKind::Handshake`] if the server does not accept the handshake. [`Error::response`]
    ///   returns the response that the server sent instead, if it sent one.
    /// - Returns [`ErrorKind::Timeout`] if the handshake takes longer than [`Limits::handshake_timeout`], or
    ///   the connection has timed out.
    /// - Returns [`ErrorKind::Limit`] if the head of the response is too large.
    /// - Returns [`ErrorKind::Disconnected`] or [`ErrorKind::Protocol`] if the connection has ended or is
    ///   about to end. In that case, open another connection.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future resets the stream of the request with
    /// `H3_REQUEST_CANCELLED`, and leaves the connection as it is.
    pub async fn connect(&self, path: impl Display) -> Result<(WebSocket, Response<()>), Error> {
        let path = path.to_string();
        Box::pin(self.connect_to(path)).await
    }

    /// Sends a request as it is, and returns the response with the stream of both.
    ///
    /// This method is for protocols that are no WebSockets of this library: with another `:protocol`, or with
    /// a framing of one's own. [`connect`](Self::connect) is for all others.
    ///
    /// A request with the method CONNECT and a [`ConnectProtocol`] in its extensions is an extended CONNECT
    /// (RFC 9220 3, RFC 8441 4). If its response has a status 2xx, the stream carries the protocol.
    /// Otherwise, reading returns the body of the response, and writing sends that of the request. Interim
    /// responses are skipped, and redirects are not followed. The options of the [`Connector`] add nothing to
    /// the request, apart from its limits. Calls wait for a stream as in `connect`.
    ///
    /// ```no_run
    /// use bowline::ConnectProtocol;
    /// use bowline::http::{Method, Request};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// # async fn example(
    /// #     connection: bowline_http3::Http3Connection,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let request = Request::builder()
    ///     .method(Method::CONNECT)
    ///     .uri("https://example.com/files")
    ///     .extension(ConnectProtocol::new("my-protocol"))
    ///     .body(())?;
    /// let (head, mut stream) = connection.tunnel(request).await?.into_parts();
    /// if head.status.is_success() {
    ///     stream.write_all(b"hello").await?;
    ///     stream.shutdown().await?;
    ///     let mut answer = Vec::new();
    ///     stream.read_to_end(&mut answer).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the URI has no scheme or no host, if a header is one of a
    ///   connection of HTTP/1.1 (RFC 9114 4.2), or if the request is larger than the server accepts.
    /// - Returns [`ErrorKind::Handshake`] if the response is malformed.
    /// - Returns [`ErrorKind::Timeout`] if no response arrives within [`Limits::handshake_timeout`], or the
    ///   connection has timed out.
    /// - Returns [`ErrorKind::Limit`] if the head of the response is too large.
    /// - Returns [`ErrorKind::Disconnected`] or [`ErrorKind::Protocol`] if the stream or the connection has
    ///   ended, or the server accepts no more requests.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future resets the stream of the request with
    /// `H3_REQUEST_CANCELLED`, and leaves the connection as it is.
    pub async fn tunnel(&self, request: Request<()>) -> Result<Response<Http3Stream>, Error> {
        Box::pin(self.send(request)).await
    }

    async fn send(&self, request: Request<()>) -> Result<Response<Http3Stream>, Error> {
        let ClientState { limits, settings, .. } = &*self.0;
        check_request(&request)?;
        let section = encode(&request, settings)?;
        let (mut send, mut receive) = self.open_stream().await?;
        let exchanging = async {
            send.send_head(&section).await?;
            receive_response(&mut receive, limits).await
        };
        let response = in_time(limits.handshake_timeout, "the request", exchanging).await?;
        // RFC 9114 4.4: a CONNECT that succeeds has no body, and a tunnel instead.
        let opens = request.method() == Method::CONNECT && response.status().is_success();
        let stream_of = if opens { Http3Stream::new } else { Http3Stream::of_body };
        Ok(response.map(|()| stream_of(send, receive)))
    }

    async fn connect_to(&self, path: String) -> Result<(WebSocket, Response<()>), Error> {
        let start = Instant::now();
        let ClientState { connector, server, limits, local, settings, user, .. } = &*self.0;
        // Otherwise, the path might be a part of the host.
        if !path.starts_with(['/', '?']) && !path.is_empty() {
            let text = format!("the path {path:?} does not begin with /");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let (request, handshake) = connector.request(format!("{server}{path}"))?;
        let section = encode(&extended_connect(request), settings)?;
        let session = &user.session;
        let (mut send, mut receive) = self.open_stream().await?;
        let exchanging = exchange(&mut send, &mut receive, &section, handshake, limits);
        let (verified, mut response) =
            match in_time(limits.handshake_timeout, "the opening handshake", exchanging).await {
                Ok(opened) => opened,
                Err(error) => {
                    // RFC 9114 4.1.1: a client that gives up a request resets and stops its stream.
                    receive.stop(ErrorCode::REQUEST_CANCELLED);
                    return Err(error);
                }
            };
        response.extensions_mut().insert(HandshakeTimes::new(start.elapsed()));
        let verified = verified.peer_addr(session.quic.remote_address());
        let verified = match local {
            Some(local) => verified.local_addr(*local),
            None => verified,
        };
        Ok((verified.finish(Http3Stream::new(send, receive), Vec::new()), response))
    }

    /// Waits for a stream, as long as the server accepts requests.
    async fn open_stream(&self) -> Result<(SendHalf, ReceiveHalf), Error> {
        let user = &self.0.user;
        let session = &user.session;
        let mut news = self.0.news.clone();
        let mut opening = pin!(session.quic.open_bi());
        let mut leaving = pin!(async {
            // If the connection ends, `opening` says why.
            if news.wait_for(|news| news.goaway).await.is_err() {
                pending::<()>().await;
            }
        });
        let (send, receive) = poll_fn(|cx| {
            if leaving.as_mut().poll(cx).is_ready() {
                let text = "the server accepts no more requests on this HTTP/3 connection: open another";
                return Poll::Ready(Err(Error::new(ErrorKind::Disconnected, text)));
            }
            opening.as_mut().poll(cx).map_err(|error| session.broken(error))
        })
        .await?;
        let receive = ReceiveHalf::new(receive, user.clone(), Side::Client);
        Ok((SendHalf::new(send, user.clone()), receive))
    }

    /// Waits until the connection has ended, and returns the reason.
    ///
    /// ```no_run
    /// # async fn example(connection: bowline_http3::Http3Connection) {
    /// println!("{}", connection.closed().await);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future changes nothing.
    pub async fn closed(&self) -> Error {
        let mut news = self.0.news.clone();
        let gone =
            || Error::new(ErrorKind::Disconnected, "the runtime of the HTTP/3 connection was shut down");
        match news.wait_for(|news| news.ended.is_some()).await {
            Ok(news) => news.ended.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }

    /// Returns `true` if the connection has ended.
    ///
    /// ```no_run
    /// # async fn example(connection: bowline_http3::Http3Connection) {
    /// assert!(!connection.is_closed());
    /// # }
    /// ```
    pub fn is_closed(&self) -> bool {
        self.0.news.borrow().ended.is_some() || self.0.news.has_changed().is_err()
    }
}

impl fmt::Debug for Http3Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.0.user.session.quic.remote_address();
        f.debug_struct("Http3Connection").field("peer_addr", &peer).finish_non_exhaustive()
    }
}

/// The addresses of a server.
enum Addresses {
    /// The addresses of the URL's host.
    OfHost,
    Given(Vec<SocketAddr>),
}

/// The server of a URL.
struct Target {
    /// The URL up to its path.
    server: String,
    uri: Uri,
    limits: Limits,
}

impl Target {
    fn parse(connector: &Connector, url: &str) -> Result<Self, Error> {
        let (request, handshake) = connector.request(url)?;
        let uri = request.uri().clone();
        if uri.scheme() != Some(&Scheme::HTTPS) {
            let text = "HTTP/3 is always encrypted: the URL has to begin with wss:// or https://";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        // The connector has checked that there is an authority.
        let authority = url.find("://").map_or(0, |colon| colon + 3);
        let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |end| authority + end);
        Ok(Self { server: url[..end].to_owned(), uri, limits: handshake.limits().clone() })
    }
}

/// The task of a connection.
struct ConnectionTask {
    driver: Driver,
    session: Arc<Session>,
    /// Cancelled when nobody uses the connection any more.
    unused: CancellationToken,
    news: watch::Sender<News>,
    /// The socket outlives the connection: the last packet has to leave.
    endpoint: Endpoint,
    close_timeout: Duration,
}

impl ConnectionTask {
    async fn run(mut self) {
        let reason = {
            let Self { driver, unused, news, session, .. } = &mut self;
            let mut unused = pin!(unused.cancelled());
            poll_fn(|cx| {
                let ended = driver.poll(cx);
                let goaway = driver.peer.goaway.is_some();
                news.send_if_modified(|news| std::mem::replace(&mut news.goaway, goaway) != goaway);
                if ended.is_ready() {
                    return ended;
                }
                unused.as_mut().poll(cx).map(|()| {
                    session.close();
                    session.broken(quinn::ConnectionError::LocallyClosed)
                })
            })
            .await
        };
        self.news.send_modify(|news| news.ended = Some(reason));
        // The peer may not answer: this is a courtesy.
        let _ = timeout(self.close_timeout, self.endpoint.wait_idle()).await;
    }
}

/// Drives a new connection until the server's settings are known.
async fn settled(driver: &mut Driver) -> Result<Settings, Error> {
    poll_fn(|cx| {
        let ended = driver.poll(cx);
        match (driver.peer.settings, ended) {
            (Some(settings), _) => Poll::Ready(Ok(settings)),
            (None, Poll::Ready(error)) => Poll::Ready(Err(error)),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

/// Encodes a request, as far as the server accepts its size.
fn encode(request: &Request<()>, settings: &Settings) -> Result<Vec<u8>, Error> {
    let section = encode_request(request);
    // RFC 9114 4.2.2: a larger section is not sent. Without the 32 bytes of each line, it is smaller.
    if section.len() as u64 > settings.max_field_section_size {
        let text = "the request has more headers than the server accepts (SETTINGS_MAX_FIELD_SECTION_SIZE)";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(section)
}

/// Checks a request of the application's.
fn check_request(request: &Request<()>) -> Result<(), Error> {
    let uri = request.uri();
    // RFC 9114 4.3.1, RFC 8441 4.
    if uri.scheme().is_none() || uri.authority().is_none() {
        let text = format!("the URI {uri} of the request needs a scheme and a host");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let mut headers = request.headers().iter();
    match headers.find(|(name, value)| is_of_connection(name, value.as_bytes())) {
        None => Ok(()),
        Some((name, _)) => {
            let text = format!("the header {name} is one of a connection of HTTP/1.1 (RFC 9114 4.2)");
            Err(Error::new(ErrorKind::InvalidInput, text))
        }
    }
}

/// Turns the request of a handshake into an extended CONNECT (RFC 9220 3, RFC 8441 4).
fn extended_connect(request: Request<()>) -> Request<()> {
    let (mut head, ()) = request.into_parts();
    head.method = Method::CONNECT;
    head.version = Version::HTTP_3;
    head.extensions.insert(ConnectProtocol::new("websocket"));
    // RFC 8441 5: the pseudo-headers replace these headers.
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY] {
        head.headers.remove(name);
    }
    let mut uri = head.uri.into_parts();
    // The value of `Connector::host`, if it is an authority.
    let host = head.headers.remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    uri.authority = authority.or(uri.authority);
    head.uri = Uri::from_parts(uri).expect("one authority was replaced by another");
    Request::from_parts(head, ())
}

/// Sends the request, and receives and verifies the response.
async fn exchange(
    send: &mut SendHalf,
    receive: &mut ReceiveHalf,
    section: &[u8],
    handshake: ClientHandshake,
    limits: &Limits,
) -> Result<(VerifiedHandshake, Response<()>), Error> {
    send.send_head(section).await?;
    let response = receive_response(receive, limits).await?;
    if response.status().is_success() {
        let verified = handshake.verify(&response)?;
        return Ok((verified, response));
    }
    let mut body = Vec::new();
    // The bytes that arrive in time are enough for an error.
    let _ = timeout(limits.handshake_timeout / 2, receive.take(BODY_KEPT).read_to_end(&mut body)).await;
    let verified = handshake.verify_whole(Response::from_parts(response.clone().into_parts().0, body))?;
    Ok((verified, response))
}

/// Receives the head of the final response.
async fn receive_response(receive: &mut ReceiveHalf, limits: &Limits) -> Result<Response<()>, Error> {
    let head_limits = HeadLimits { size: limits.head_size, headers: limits.max_headers };
    let too_large = || {
        let size = limits.head_size;
        Error::new(ErrorKind::Limit, format!("the response's head is over {size} bytes (Limits::head_size)"))
    };
    loop {
        let section =
            receive.receive_section(limits.head_size).await.map_err(|unreceived| match unreceived {
                Unreceived::TooLarge => too_large(),
                Unreceived::Failed(error) => error,
            })?;
        let response =
            decode_response(&section, head_limits).map_err(|error| match (&error, violation_of(&error)) {
                (_, Some(violation)) => receive.fail(violation),
                (HeadError::Section(_), _) => too_large(),
                (HeadError::TooMany, _) => {
                    let max = limits.max_headers;
                    let text = format!("the response has more than {max} headers (Limits::max_headers)");
                    Error::new(ErrorKind::Limit, text)
                }
                (HeadError::Malformed(why), _) => {
                    Error::new(ErrorKind::Handshake, format!("the server's response is malformed: {why}"))
                }
            })?;
        // RFC 9114 4.5: HTTP/3 has no 101.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let text = "the server's response is malformed: HTTP/3 has no 101 (RFC 9114 4.5)";
            return Err(Error::new(ErrorKind::Handshake, text));
        }
        // RFC 9114 4.1: interim responses precede the final one.
        if !response.status().is_informational() {
            return Ok(response);
        }
        // A flood of them must not keep other tasks, and the time limit, from running.
        consume_budget().await;
    }
}
