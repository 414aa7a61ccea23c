//! `Server::fallback` over HTTP/2: requests that ask for no WebSocket.

use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::time::Duration;

use bowline::{Acceptor, CloseCode, Connector, HttpVersion, Limits, Server};
use bytes::Bytes;
use h2::client::SendRequest;
use http::request::Parts;
use http::{Method, Request, Response, Version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::support::http::{echo, soon, start};
use crate::support::http2::{
    DATA, GO_AWAY, HEADERS, RST_STREAM, SETTINGS, SETTINGS_INITIAL_WINDOW_SIZE, connect_headers, frame,
    get_headers, headers, hello, read_frame, rst_stream, window_update,
};
use crate::support::settle;
use crate::support::tls::configs;

/// The handshake timeout. The clock is paused in the tests of times.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The flag of a SETTINGS frame that acknowledges one (RFC 9113 6.5).
const ACK: u8 = 1;

async fn page(head: Parts) -> Response<String> {
    match head.uri.path() {
        "/panics" => panic!("the template is gone"),
        "/hangs" => pending().await,
        "/switches" => response(101, ""),
        "/empty" => response(204, ""),
        "/upgrades" => {
            let mut response = response(200, "page");
            for name in ["connection", "upgrade", "keep-alive", "transfer-encoding"] {
                response.headers_mut().insert(name, "x".parse().unwrap());
            }
            response.headers_mut().insert("content-length", "3".parse().unwrap());
            response
        }
        "/large" => response(200, &"x".repeat(1 << 20)),
        path => response(200, &format!("{} {path}", head.method)),
    }
}

fn response(status: u16, body: &str) -> Response<String> {
    Response::builder().status(status).body(body.to_owned()).unwrap()
}

/// Returns a server of pages, and what it reports.
fn server(limits: Limits) -> (Server, mpsc::UnboundedReceiver<String>) {
    let (sender, errors) = mpsc::unbounded_channel();
    let acceptor = Acceptor::new().limits(limits.handshake_timeout(TIMEOUT));
    let server = Server::new().http2().acceptor(acceptor).fallback(page).on_error(move |error| {
        // The test may be over.
        let _ = sender.send(error.to_string());
    });
    (server, errors)
}

/// Starts a server of pages and of an echo, and returns what it reports, too.
async fn serve(limits: Limits) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (server, errors) = server(limits);
    (start(server, echo).await, errors)
}

/// Connects to such a server in memory, where a paused clock is exact.
fn connect() -> (DuplexStream, mpsc::UnboundedReceiver<String>) {
    let (server, errors) = server(Limits::default());
    let (near, far) = duplex(1024);
    tokio::spawn(server.serve_connection(far, None, echo));
    (near, errors)
}

/// Begins HTTP/2 on a stream.
async fn client<S>(stream: S) -> SendRequest<Bytes>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    requests.ready().await.unwrap()
}

/// Sends a request, and returns the whole answer.
async fn ask(
    requests: &mut SendRequest<Bytes>,
    method: Method,
    path: &str,
    body: &[u8],
) -> Result<Response<String>, h2::Error> {
    let request = Request::builder().method(method).version(Version::HTTP_2);
    let request = request.uri(format!("http://localhost{path}")).body(()).unwrap();
    let (answer, mut send) = requests.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        send.send_data(Bytes::copy_from_slice(body), true)?;
    }
    let (head, mut body) = soon(answer).await?.into_parts();
    let mut text = Vec::new();
    while let Some(data) = soon(body.data()).await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        text.extend_from_slice(&data);
    }
    Ok(Response::from_parts(head, String::from_utf8(text).unwrap()))
}

async fn get(requests: &mut SendRequest<Bytes>, path: &str) -> Response<String> {
    ask(requests, Method::GET, path, b"").await.unwrap()
}

async fn assert_serves_pages(mut requests: SendRequest<Bytes>) {
    for path in ["/", "/healthz", "/?query=1"] {
        let answer = get(&mut requests, path).await;
        assert_eq!(*answer.body(), format!("GET {}", path.split('?').next().unwrap()));
        assert_eq!(answer.headers()["content-length"], &*answer.body().len().to_string());
    }
    let answer = ask(&mut requests, Method::HEAD, "/page", b"").await.unwrap();
    assert_eq!((answer.body().as_str(), answer.headers()["content-length"].as_bytes()), ("", &b"10"[..]));
    let answer = get(&mut requests, "/empty").await;
    assert_eq!((answer.status().as_u16(), answer.headers().get("content-length")), (204, None));
    let answer = ask(&mut requests, Method::POST, "/form", b"a=1&b").await.unwrap();
    assert_eq!(answer.body(), "POST /form");
    assert_eq!(get(&mut requests, "/large").await.body().len(), 1 << 20);
    // Headers of HTTP/1.1 would make the response malformed.
    let answer = get(&mut requests, "/upgrades").await;
    assert_eq!((answer.body().as_str(), answer.headers().len()), ("page", 1), "{:?}", answer.headers());
}

#[tokio::test]
async fn pages_in_clear_text_and_over_tls() {
    let (address, mut errors) = serve(Limits::default()).await;
    assert_serves_pages(client(TcpStream::connect(address).await.unwrap()).await).await;
    assert!(errors.try_recv().is_err(), "nothing went wrong");

    let (server, mut config) = configs();
    let address = start(Server::new().http2().tls(server).fallback(page), echo).await;
    std::sync::Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    assert_serves_pages(client(stream).await).await;
}

/// A page and a WebSocket share a connection.
#[tokio::test]
async fn pages_beside_a_websocket() {
    let (address, _errors) = serve(Limits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let first = [hello(&[]), connect_headers(1, "/", "13"), get_headers(3)].concat();
    stream.write_all(&first).await.unwrap();
    let (mut opened, mut body) = (false, Vec::new());
    while !opened || body.is_empty() {
        match soon(read_frame(&mut stream)).await.unwrap() {
            (HEADERS, _, 1, _) => opened = true,
            (DATA, _, 3, data) => body = data,
            _ => {}
        }
    }
    assert_eq!(body, b"GET /");
    let over_http2 = Connector::new().http_version(HttpVersion::Http2);
    let (mut socket, _) = soon(over_http2.connect(format!("ws://{address}/"))).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
}

#[tokio::test]
async fn broken_handshakes_are_rejected_as_without_a_fallback() {
    let (address, _errors) = serve(Limits::default()).await;
    let connect = |protocol: Option<&'static str>, version: &'static str| {
        let mut fields = vec![(":method", "CONNECT"), (":authority", "localhost")];
        if let Some(protocol) = protocol {
            fields.extend([(":protocol", protocol), (":scheme", "http"), (":path", "/")]);
        }
        fields.push(("sec-websocket-version", version));
        fields
    };
    for (fields, status) in [
        (connect(Some("websocket"), "12"), "400"),
        (connect(Some("connect-udp"), "13"), "501"),
        (connect(None, "13"), "400"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[hello(&[]), headers(1, &fields)].concat()).await.unwrap();
        let block = async {
            loop {
                if let (HEADERS, _, 1, block) = read_frame(&mut stream).await.unwrap() {
                    return block;
                }
            }
        };
        let block = soon(block).await;
        // RFC 7541 6.1, A: 400 is entry 12 of the static table. Other statuses are literals of entry 8.
        let is_400 = block[0] == 0x8c;
        let is_501 = block[0] & 0x3f == 8;
        assert!(if status == "400" { is_400 } else { is_501 }, "{fields:?}: {block:x?}");
    }
}

#[tokio::test]
async fn a_fallback_that_fails_is_a_500() {
    let (address, mut errors) = serve(Limits::default()).await;
    let mut requests = client(TcpStream::connect(address).await.unwrap()).await;
    for (path, error) in [
        ("/panics", "the fallback panicked: the template is gone"),
        ("/switches", "Server::fallback returned 101 Switching Protocols"),
    ] {
        let answer = get(&mut requests, path).await;
        assert_eq!((answer.status().as_u16(), answer.body().as_str()), (500, "Internal Server Error\n"));
        let report = soon(errors.recv()).await.unwrap();
        assert!(report.contains(error), "{report}");
        // The connection is as good as before.
        assert_eq!(get(&mut requests, "/").await.body(), "GET /");
    }
}

/// A page takes one of the streams that a connection may have.
#[tokio::test]
async fn a_page_over_the_limit_of_streams_is_refused() {
    let (address, _errors) = serve(Limits::default().max_streams(1)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let get = |stream, path| {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)];
        headers(stream, &fields)
    };
    // The settings of the server have arrived before the second request.
    stream.write_all(&[hello(&[]), get(1, "/hangs")].concat()).await.unwrap();
    settle().await;
    stream.write_all(&[frame(SETTINGS, ACK, 0, b""), get(3, "/")].concat()).await.unwrap();
    let refused = async {
        loop {
            if let (RST_STREAM, _, 3, reason) = read_frame(&mut stream).await.unwrap() {
                return reason;
            }
        }
    };
    // RFC 9113 7: REFUSED_STREAM.
    assert_eq!(soon(refused).await, [0, 0, 0, 7]);
}

/// A body that is not read takes no more than its window, and its stream ends with the answer.
#[tokio::test]
async fn a_large_body_of_a_request_is_discarded() {
    let (address, _errors) = serve(Limits::default()).await;
    let mut requests = client(TcpStream::connect(address).await.unwrap()).await;
    let request = Request::post("http://localhost/form").body(()).unwrap();
    let (answer, mut send) = requests.send_request(request, false).unwrap();
    let sending = tokio::spawn(async move {
        loop {
            send.reserve_capacity(16 * 1024);
            match poll_fn(|cx| send.poll_capacity(cx)).await {
                Some(Ok(count)) if count > 0 => {
                    if send.send_data(vec![0; count].into(), false).is_err() {
                        break;
                    }
                }
                Some(Ok(_)) => {}
                _ => break,
            }
        }
    });
    let (head, mut body) = soon(answer).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "POST /form");
    // RFC 9113 8.1: the server asks the client to stop.
    soon(sending).await.unwrap();
    assert_eq!(get(&mut requests, "/").await.body(), "GET /");
}

/// The future of a page ends with its stream, as that of a check does.
#[tokio::test]
async fn the_future_of_a_page_ends_with_its_stream() {
    struct Ended(mpsc::UnboundedSender<&'static str>);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.send("ended");
        }
    }
    let (begun, mut events) = mpsc::unbounded_channel();
    let server = Server::new().http2().fallback(move |_: Parts| {
        let begun = begun.clone();
        async move {
            begun.send("begun").unwrap();
            let _ended = Ended(begun);
            pending::<Response<String>>().await
        }
    });
    let mut stream = TcpStream::connect(start(server, echo).await).await.unwrap();
    stream.write_all(&[hello(&[]), get_headers(1)].concat()).await.unwrap();
    assert_eq!(soon(events.recv()).await, Some("begun"));
    stream.write_all(&rst_stream(1)).await.unwrap();
    assert_eq!(soon(events.recv()).await, Some("ended"));
}

// ---- times

/// A connection lives as long as its pages come, and ends like one that is not used.
#[tokio::test(start_paused = true)]
async fn a_connection_lives_as_long_as_pages_are_sent() {
    let (stream, mut errors) = connect();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let mut requests = requests.ready().await.unwrap();
    for _ in 0..10 {
        sleep(TIMEOUT * 3 / 4).await;
        assert_eq!(get(&mut requests, "/").await.body(), "GET /");
    }
    let begun = Instant::now();
    ended.await.unwrap().unwrap();
    assert!((TIMEOUT..=TIMEOUT * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    settle().await;
    assert_eq!(errors.try_recv().ok(), None);
}

/// A client without a window receives nothing, so its requests keep no connection.
#[tokio::test(start_paused = true)]
async fn pages_that_nobody_receives_are_no_use() {
    for reads in [true, false] {
        let (mut stream, mut errors) = connect();
        stream.write_all(&hello(&[(SETTINGS_INITIAL_WINDOW_SIZE, 0)])).await.unwrap();
        let begun = Instant::now();
        let (mut read, mut write) = tokio::io::split(stream);
        let reading = tokio::spawn(async move {
            while reads && read_frame(&mut read).await.is_some() {}
            read
        });
        let asking = async {
            for stream in (1..).step_by(2) {
                if write.write_all(&get_headers(stream)).await.is_err() {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(TIMEOUT * 10, asking).await.expect("the connection ends");
        assert!(begun.elapsed() <= TIMEOUT * 4, "{:?}", begun.elapsed());
        reading.abort();
        // Each page that was given up is reported.
        assert!(errors.recv().await.unwrap().contains("sending the answer"));
    }
}

/// Also on a connection in use.
#[tokio::test(start_paused = true)]
async fn a_page_that_never_fits_is_reset() {
    let (mut stream, _errors) = connect();
    let websocket = [connect_headers(1, "/", "13"), window_update(1, 1 << 20)].concat();
    let first = [hello(&[(SETTINGS_INITIAL_WINDOW_SIZE, 0)]), websocket, get_headers(3)].concat();
    stream.write_all(&first).await.unwrap();
    let begun = Instant::now();
    let reset = async {
        loop {
            match read_frame(&mut stream).await.unwrap() {
                (RST_STREAM, _, 3, _) => break,
                (kind, _, _, _) => assert_ne!(kind, GO_AWAY),
            }
        }
    };
    soon(reset).await;
    assert!((TIMEOUT..TIMEOUT * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}
