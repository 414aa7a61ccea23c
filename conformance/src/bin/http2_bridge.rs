//! A bridge with which Autobahn, which speaks only HTTP/1.1, tests WebSockets over HTTP/2. For each WebSocket
//! in one version, the bridge opens one in the other version, and relays bytes and ends unchanged.

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bowline_proto::handshake::Key;
use bytes::{Bytes, BytesMut};
use clap::{Parser, ValueEnum};
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    /// The HTTP version of the target. Clients of the bridge use the other version.
    #[arg(value_enum)]
    version: Version,
    /// The target, such as `127.0.0.1:9001`.
    target: SocketAddr,
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    Http1,
    Http2,
}

/// The window of a stream: the bytes that may arrive before they are relayed.
const STREAM_WINDOW: u32 = 1 << 20;

/// The window of the connection, for all streams together.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The allowance for small DATA frames: the suite has messages in fragments of 64 bytes.
const FRAME_BUDGET: usize = 64 << 20;

/// The headers that the two sides negotiate in the opening handshake.
const OF_REQUEST: [HeaderName; 4] =
    [SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS, ORIGIN];
const OF_RESPONSE: [HeaderName; 2] = [SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Arguments { version, target } = Arguments::parse();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    match version {
        Version::Http2 => bridge_to_http2(listener, target).await,
        Version::Http1 => bridge_to_http1(listener, target).await,
    }
}

fn report(failure: impl AsRef<dyn Error + Send + Sync>) {
    let mut text = failure.as_ref().to_string();
    let mut source = failure.as_ref().source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    eprintln!("{text}");
}

/// Relays all WebSockets as streams of one HTTP/2 connection.
async fn bridge_to_http2(listener: TcpListener, target: SocketAddr) -> Result<(), Failure> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (requests, connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(FRAME_BUDGET)
        .handshake(stream)
        .await?;
    tokio::spawn(async {
        match connection.await {
            Ok(()) => eprintln!("the HTTP/2 connection has ended"),
            Err(error) => report(Failure::from(error)),
        }
    });
    // RFC 8441 3: a client must not use extended CONNECT before it has received the setting.
    let enabled = async {
        while !requests.is_extended_connect_protocol_enabled() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), enabled)
        .await
        .map_err(|_| "the server accepts no WebSockets over HTTP/2")?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let requests = requests.clone();
        let service = service_fn(move |request| answer_over_http1(request, requests.clone()));
        tokio::spawn(async move {
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            serving.with_upgrades().await.unwrap_or_else(|error| report(Failure::from(error)));
        });
    }
}

async fn answer_over_http1(
    mut request: Request<Incoming>,
    requests: h2::client::SendRequest<Bytes>,
) -> Result<Response<String>, Failure> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).and_then(|key| Key::parse(key.as_bytes()));
    let key = key.ok_or("the request is no WebSocket handshake")?;
    let host = request.headers().get(HOST).ok_or("the request has no Host")?.to_str()?;
    let mut connect = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://{host}{}", request.uri()))
        .extension(Protocol::from_static("websocket"))
        .body(())?;
    copy(&OF_REQUEST, request.headers(), connect.headers_mut());
    let (answer, send) = requests.ready().await?.send_request(connect, false)?;
    let (head, receive) = answer.await?.into_parts();
    let mut response = Response::new(String::new());
    copy(&OF_RESPONSE, &head.headers, response.headers_mut());
    *response.status_mut() = head.status;
    if head.status == StatusCode::OK {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(SEC_WEBSOCKET_ACCEPT, key.accept().as_str().parse()?);
        headers.insert(CONNECTION, "Upgrade".parse()?);
        headers.insert(UPGRADE, "websocket".parse()?);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => tunnel(upgraded, send, receive).await,
                Err(error) => report(Failure::from(error)),
            }
        });
    }
    Ok(response)
}

/// Relays each WebSocket as a TCP connection.
async fn bridge_to_http1(listener: TcpListener, target: SocketAddr) -> Result<(), Failure> {
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            serve_http2(stream, target).await.unwrap_or_else(report);
        });
    }
}

async fn serve_http2(stream: TcpStream, target: SocketAddr) -> Result<(), Failure> {
    let mut connection = h2::server::Builder::new()
        .enable_connect_protocol()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(FRAME_BUDGET)
        .handshake(stream)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        tokio::spawn(async move {
            answer_over_http2(request, respond, target).await.unwrap_or_else(report);
        });
    }
    Ok(())
}

async fn answer_over_http2(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    target: SocketAddr,
) -> Result<(), Failure> {
    let is_websocket =
        request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket");
    if request.method() != Method::CONNECT || !is_websocket {
        return Err("the request is no WebSocket handshake".into());
    }
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    // A random key has no use here.
    let key = Key::from_nonce(*b"the bridge's key");
    let mut get = Request::builder()
        .uri(request.uri().path_and_query().ok_or("the request has no path")?.as_str())
        .header(HOST, target.to_string())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_KEY, key.as_str())
        .body(String::new())?;
    copy(&OF_REQUEST, request.headers(), get.headers_mut());
    let mut answer = requests.send_request(get).await?;
    let is_accepted = answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && answer
            .headers()
            .get(SEC_WEBSOCKET_ACCEPT)
            .is_some_and(|accept| key.accept().matches(accept.as_bytes()));
    let mut response = Response::new(());
    copy(&OF_RESPONSE, answer.headers(), response.headers_mut());
    if !is_accepted {
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        respond.send_response(response, true)?;
        return Err(format!("the target answered {}", answer.status()).into());
    }
    let upgraded = hyper::upgrade::on(&mut answer).await?;
    let send = respond.send_response(response, false)?;
    tunnel(upgraded, send, request.into_body()).await;
    Ok(())
}

fn copy(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

/// The sides that have ended abnormally.
enum Broken {
    Tcp,
    Http2,
}

/// RFC 8441 5: the end of a TCP connection corresponds to `END_STREAM`, a TCP reset to `RST_STREAM` with
/// CANCEL.
async fn tunnel(upgraded: Upgraded, mut send: SendStream<Bytes>, receive: RecvStream) {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().expect("all connections of the bridge are TCP");
    let mut stream = parts.io.into_inner();
    let (read, write) = stream.split();
    let up = pass_on_tcp(parts.read_buf, read, &mut send);
    match tokio::try_join!(up, pass_on_http2(receive, write)) {
        Ok(_) => {}
        Err(Broken::Tcp) => send.send_reset(Reason::CANCEL),
        // This call fails only on a broken socket.
        Err(Broken::Http2) => drop(stream.set_zero_linger()),
    }
}

async fn pass_on_tcp(
    leftover: Bytes,
    mut read: ReadHalf<'_>,
    send: &mut SendStream<Bytes>,
) -> Result<(), Broken> {
    let mut data = BytesMut::from(leftover);
    loop {
        while !data.is_empty() {
            send.reserve_capacity(data.len());
            let capacity = poll_fn(|cx| send.poll_capacity(cx)).await;
            let capacity = capacity.and_then(Result::ok).ok_or(Broken::Http2)?;
            let count = capacity.min(data.len());
            send.send_data(data.split_to(count).freeze(), false).map_err(|_| Broken::Http2)?;
        }
        data.reserve(16 * 1024);
        let count = tokio::select! {
            count = read.read_buf(&mut data) => count.map_err(|_| Broken::Tcp)?,
            _ = poll_fn(|cx| send.poll_reset(cx)) => return Err(Broken::Http2),
        };
        if count == 0 {
            return send.send_data(Bytes::new(), true).map_err(|_| Broken::Http2);
        }
    }
}

async fn pass_on_http2(mut receive: RecvStream, mut write: WriteHalf<'_>) -> Result<(), Broken> {
    while let Some(data) = poll_fn(|cx| receive.poll_data(cx)).await {
        let data = data.map_err(|_| Broken::Http2)?;
        write.write_all(&data).await.map_err(|_| Broken::Tcp)?;
        // This call fails only if the stream has ended.
        let _ = receive.flow_control().release_capacity(data.len());
    }
    write.shutdown().await.map_err(|_| Broken::Tcp)
}
