//! `--to`: a gateway to a TCP server, a Unix socket, or another WebSocket server.
//!
//! The gateway connects while the request is checked, so that a server that is not there is a 502 and not a
//! connection that ends at once. The connection reaches the handler through the extensions of the request.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use bowline::http::header::{AUTHORIZATION, COOKIE, HOST, USER_AGENT};
use bowline::http::request::Parts;
use bowline::http::uri::PathAndQuery;
use bowline::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use bowline::{Acceptance, CloseCode, CloseFrame, Connector, Error, Limits, Rejection, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, split};
use tokio::net::TcpStream;

use super::log::{ConnectionLog, HandlerError};
use super::pump::{self, End, Framing};
use crate::connect::Size;

/// The server behind the gateway.
#[derive(Clone, Debug)]
pub(crate) enum Upstream {
    Tcp(String),
    Unix(PathBuf),
    WebSocket(Uri),
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(address) = text.strip_prefix("tcp:") {
            let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            return match port {
                Some(Ok(_)) => Ok(Self::Tcp(address.to_owned())),
                _ => Err("expected tcp:HOST:PORT".into()),
            };
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let url: Uri = text.parse().map_err(|error| format!("neither tcp:, unix: nor a URL: {error}"))?;
        // Finds what is wrong with the URL before the first request does.
        Connector::new().request(&url).map_err(|error| error.to_string())?;
        Ok(Self::WebSocket(url))
    }
}

/// A byte stream to the server behind the gateway.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection to the server behind the gateway.
enum Connected {
    Stream(Box<dyn Stream>),
    WebSocket(Box<WebSocket>),
}

/// A connection on its way from the check to the handler. Extensions have to be cloned; the first taker wins.
#[derive(Clone)]
struct Passed(Arc<Mutex<Option<Connected>>>);

/// Connects to the server behind the gateway, with what the client has asked for.
pub(crate) async fn connect(
    upstream: &Upstream,
    mut head: Parts,
    max_size: Size,
) -> Result<Acceptance, Rejection> {
    let mut subprotocol = None;
    let connected = match upstream {
        Upstream::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(|error| bad_gateway(error, address))?;
            stream.set_nodelay(true).map_err(|error| bad_gateway(error, address))?;
            Connected::Stream(Box::new(stream))
        }
        #[cfg(unix)]
        Upstream::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(path)
                .await
                .map_err(|error| bad_gateway(error, &path.display().to_string()))?;
            Connected::Stream(Box::new(stream))
        }
        #[cfg(not(unix))]
        Upstream::Unix(path) => {
            return Err(bad_gateway(std::io::ErrorKind::Unsupported.into(), &path.display().to_string()));
        }
        Upstream::WebSocket(url) => {
            let socket = connect_websocket(url, &head, max_size).await?;
            subprotocol = socket.subprotocol().map(str::to_owned);
            Connected::WebSocket(Box::new(socket))
        }
    };
    head.extensions.insert(Passed(Arc::new(Mutex::new(Some(connected)))));
    let acceptance = Acceptance::from(head);
    Ok(match subprotocol {
        Some(name) => acceptance.subprotocol(name),
        None => acceptance,
    })
}

fn bad_gateway(error: impl StdError + Send + Sync + 'static, to: &str) -> Rejection {
    Rejection::from(StatusCode::BAD_GATEWAY).with_source(format!("--to {to}: {error}"))
}

/// Connects without the Origin: the gateway has checked it, and the server behind has another name.
async fn connect_websocket(url: &Uri, head: &Parts, max_size: Size) -> Result<WebSocket, Rejection> {
    let connector = Connector::new()
        .headers(forwarded(head))
        .subprotocols(offered(head))
        .limits(Limits::default().message_size(max_size.0).frames_per_message(u32::MAX));
    match connector.connect(target(url, &head.uri)).await {
        Ok((socket, _)) => Ok(socket),
        Err(error) => Err(refusal(&error, url)),
    }
}

/// The status of a refusal is passed on: a 401 should not become a 502.
fn refusal(error: &Error, url: &Uri) -> Rejection {
    let status = error.response().map(bowline::http::Response::status);
    let status = status.filter(StatusCode::is_client_error).unwrap_or(StatusCode::BAD_GATEWAY);
    Rejection::from(status).with_source(format!("--to {url}: {error}"))
}

/// The URL of a request: a target without a path takes that of the client.
fn target(url: &Uri, asked: &Uri) -> String {
    let path = match url.path_and_query().map(PathAndQuery::as_str) {
        None | Some("" | "/") => asked.path_and_query().map_or("/", |path| path.as_str()),
        Some(own) => own,
    };
    let scheme = url.scheme_str().unwrap_or("ws");
    format!("{scheme}://{}{path}", url.authority().map_or("", |authority| authority.as_str()))
}

fn offered(head: &Parts) -> Vec<String> {
    head.headers
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// The headers that the server behind should see, and those that say from whom they are.
fn forwarded(head: &Parts) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in [AUTHORIZATION, USER_AGENT] {
        for value in head.headers.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    // RFC 9113 8.2.3: HTTP/2 may split cookies into several lines, and HTTP/1.1 may not.
    let cookies: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let (false, Ok(joined)) = (cookies.is_empty(), HeaderValue::from_bytes(&cookies.join(&b"; "[..]))) {
        headers.insert(COOKIE, joined);
    }
    let text = |name: &HeaderName| head.headers.get(name)?.to_str().ok().map(str::to_owned);
    let name = HeaderName::from_static("x-forwarded-for");
    let peer = head.extensions.get::<std::net::SocketAddr>().map(|peer| peer.ip().to_string());
    let chain: Vec<String> = text(&name).into_iter().chain(peer).collect();
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if !chain.is_empty() {
        set("x-forwarded-for", chain.join(", "));
    }
    if let Some(host) = head.uri.authority().map(ToString::to_string).or_else(|| text(&HOST)) {
        set("x-forwarded-host", host);
    }
    headers
}

/// Relays a connection that [`connect`] has opened.
pub(crate) async fn relay(
    head: &Parts,
    mut socket: WebSocket,
    framing: Framing,
    log: &ConnectionLog,
) -> Result<(), HandlerError> {
    let passed = head.extensions.get::<Passed>().expect("the check has connected");
    let connected = passed.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    match connected.expect("each request has one handler") {
        Connected::Stream(stream) => relay_stream(&mut socket, stream, framing, log).await,
        Connected::WebSocket(upstream) => relay_messages(socket, *upstream, log).await,
    }
}

async fn relay_stream(
    socket: &mut WebSocket,
    stream: Box<dyn Stream>,
    framing: Framing,
    log: &ConnectionLog,
) -> Result<(), HandlerError> {
    let (reader, writer) = split(stream);
    match pump::pump(socket, &mut BufReader::new(reader), writer, framing, log).await {
        End::Peer(ended) => Ok(ended?),
        End::Stream(Ok(())) => {
            pump::close(socket, CloseCode::NORMAL, "").await;
            Ok(())
        }
        End::Stream(Err(error)) => {
            pump::close(socket, CloseCode::BAD_GATEWAY, "the server behind was lost").await;
            Err(error.into())
        }
    }
}

/// Relays messages in both directions, and the close code of the side that ends first.
async fn relay_messages(
    mut client: WebSocket,
    mut server: WebSocket,
    log: &ConnectionLog,
) -> Result<(), HandlerError> {
    let (to_client, to_server) = (client.sender(), server.sender());
    let forth = async {
        while let Some(message) = client.recv().await? {
            log.received(&message);
            to_server.send(message).await?;
        }
        Ok::<_, Error>(())
    };
    let back = async {
        while let Some(message) = server.recv().await? {
            to_client.send(message).await?;
        }
        Ok::<_, Error>(())
    };
    // The direction that ends first says nothing about whose end it was: a send fails, too, when its
    // connection has ended.
    let ended = tokio::select! {
        ended = forth => ended,
        ended = back => ended,
    };
    let lost = ended.is_err();
    if client.is_closed() {
        let frame = passed_on(client.close_frame(), CloseCode::GOING_AWAY);
        let _ = server.close(frame.code(), frame.reason()).await;
    } else {
        let frame = passed_on(server.close_frame(), CloseCode::BAD_GATEWAY);
        let _ = client.close(frame.code(), frame.reason()).await;
    }
    if lost && client.close_frame().is_none() { Ok(ended?) } else { Ok(()) }
}

/// The frame that the other side is closed with.
fn passed_on(frame: Option<CloseFrame>, lost: CloseCode) -> CloseFrame {
    match frame {
        Some(frame) if frame.code().is_allowed() => frame,
        // The peer's frame had no code, which can't be sent as one.
        Some(_) => CloseFrame::new(CloseCode::NORMAL, "").expect("the code may be sent"),
        None => CloseFrame::new(lost, "").expect("the code may be sent"),
    }
}
