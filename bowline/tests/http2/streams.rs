//! WebSockets over HTTP/2 (RFC 8441): handshakes, many WebSockets on one connection, and the ends of streams
//! and connections.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::Duration;

use bowline::{
    Acceptor, CloseCode, Compression, Connector, ErrorKind, HandshakeTimes, Http2Connection, HttpVersion,
    Limits, Proxy, Role, Server, WebSocket,
};
use bytes::Bytes;
use h2::Reason;
use http::request::Parts;
use http::{Method, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support;
use crate::support::frames::{Frame, take_frames};
use crate::support::http::{
    HandlerResult, Head, echo, exchange as exchange_heads, listen, read_head, soon, start,
};
use crate::support::http2::{connect_request, refusal};
use crate::support::tls::configs;

fn over_http2() -> Connector {
    Connector::new().http_version(HttpVersion::Http2)
}

async fn exchange(socket: &mut WebSocket) {
    for message in ["one", "two"] {
        socket.send(message).await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some(message.into()));
    }
    let large = vec![7_u8; 200_000];
    socket.send(&large).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some(large.into()));
}

async fn close(socket: &WebSocket) {
    let close = soon(socket.close(CloseCode::NORMAL, "done")).await.unwrap();
    assert_eq!((close.code(), close.reason()), (CloseCode::NORMAL, "done"));
}

#[tokio::test]
async fn a_tcp_connection_of_the_applications_sends_at_once() {
    let address = start(Server::new().http2(), support::http::echo).await;
    let stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let seen = stream.try_clone().unwrap();
    let stream = TcpStream::from_std(stream).unwrap();
    let (_socket, _) = soon(over_http2().connect_over(format!("ws://{address}/"), stream)).await.unwrap();
    assert!(seen.nodelay().unwrap());
}

/// The stream does TLS, so the request is one for `https`, and the library sends no TLS of its own.
#[tokio::test]
async fn a_stream_that_is_tls_already_has_the_scheme_https() {
    let (near, far) = duplex(64 * 1024);
    let tell = async |head: Parts, socket: WebSocket| Ok(socket.send(head.uri.to_string()).await?);
    tokio::spawn(Server::new().http2().serve_connection(far, None, tell));
    let connecting = over_http2().connect_over("wss://example.com/feed", near).already_tls();
    let (mut socket, response) = soon(connecting).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("https://example.com/feed".into()));
}

async fn connection_to(address: SocketAddr) -> Http2Connection {
    soon(Connector::new().connect_http2(format!("ws://{address}"))).await.unwrap()
}

/// Returns all causes of an error in one text.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Starts a hyper server of an application.
async fn serve_with_hyper() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|mut request: http::Request<Incoming>| async move {
                Ok::<_, Infallible>(match bowline::accept(&mut request) {
                    Ok((response, upgrade)) => {
                        tokio::spawn(async move { echo(upgrade.await?).await });
                        response
                    }
                    Err(rejection) => rejection.into_response::<String>(),
                })
            });
            tokio::spawn(async move {
                let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                builder.http2().enable_connect_protocol();
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// Starts a server that hands out its WebSockets, and keeps them open until told otherwise.
async fn serve_by_hand(server: Server) -> (SocketAddr, mpsc::UnboundedReceiver<WebSocket>) {
    let (sender, sockets) = mpsc::unbounded_channel();
    let address = start(server, move |socket: WebSocket| {
        let sender = sender.clone();
        async move {
            let closed = socket.sender();
            assert!(sender.send(socket).is_ok());
            closed.closed().await;
            HandlerResult::Ok(())
        }
    })
    .await;
    (address, sockets)
}

/// Starts a server that uses only h2, and accepts one stream.
async fn h2_server(
    builder: h2::server::Builder,
) -> (SocketAddr, tokio::task::JoinHandle<(h2::RecvStream, h2::SendStream<Bytes>)>) {
    h2_server_with(builder, http::Response::new(())).await
}

async fn h2_server_with(
    builder: h2::server::Builder,
    response: http::Response<()>,
) -> (SocketAddr, tokio::task::JoinHandle<(h2::RecvStream, h2::SendStream<Bytes>)>) {
    let (listener, address) = listen().await;
    let accepted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = builder.handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let send = respond.send_response(response, false).unwrap();
        (request.into_body(), send)
    });
    (address, accepted)
}

/// Returns the next bytes, or the end; never a reset.
async fn next_data(receive: &mut h2::RecvStream) -> Option<Vec<u8>> {
    loop {
        let data = soon(receive.data()).await?.expect("no reset");
        if !data.is_empty() {
            return Some(data.to_vec());
        }
    }
}

fn accepting() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    builder
}

// ---- the opening handshake

#[tokio::test]
async fn a_response_with_too_many_headers_is_refused_by_name() {
    for (headers, accepted) in [(100, true), (101, false)] {
        let mut response = http::Response::builder();
        for number in 0..headers {
            response = response.header(format!("x-{number}"), "");
        }
        let (address, _server) = h2_server_with(accepting(), response.body(()).unwrap()).await;
        let result = soon(over_http2().connect(format!("ws://{address}"))).await;
        match result {
            Ok(_) => assert!(accepted, "{headers} headers"),
            Err(error) => {
                assert!(!accepted, "{error}");
                assert_eq!(error.kind(), ErrorKind::Limit);
                assert!(error.to_string().contains("100 headers (Limits::max_headers)"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_by_prior_knowledge() {
    let address = start(Server::new().http2(), echo).await;
    let (mut socket, response) = soon(over_http2().connect(format!("ws://{address}"))).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    assert_eq!(socket.peer_addr(), Some(address));
    exchange(&mut socket).await;
    close(&socket).await;
    // On the same port, HTTP/1.1.
    let mut socket = soon(bowline::connect(format!("ws://{address}"))).await.unwrap();
    exchange(&mut socket).await;
    // Bytes that are neither, although they begin like the preface.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = Head::request().first_line("POST / HTTP/1.1");
    assert_eq!(exchange_heads(&mut stream, &request).await.0.status(), 405);
}

#[tokio::test]
async fn a_preface_in_pieces_and_what_begins_like_one() {
    let address = start(Server::new().http2(), echo).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let others =
        ["PROPFIND / HTTP/1.1", "PUT / HTTP/1.1"].map(|line| Head::request().first_line(line).text());
    for cut in 1..4 {
        for bytes in [&preface[..], others[0].as_bytes(), others[1].as_bytes()] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes[..cut]).await.unwrap();
            // This connection is served after the bytes of earlier ones were read.
            drop(soon(bowline::connect(format!("ws://{address}"))).await.unwrap());
            stream.write_all(&bytes[cut..]).await.unwrap();
            if bytes == preface {
                let mut header = [0; 9];
                soon(stream.read_exact(&mut header)).await.unwrap();
                assert_eq!(header[3], 4, "a server begins with a SETTINGS frame (RFC 9113 3.4)");
            } else {
                assert_eq!(soon(read_head(&mut stream)).await.status(), 405);
            }
        }
    }
    // A preface that ends too early is not waited for.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PR").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn under_hyper() {
    let address = serve_with_hyper().await;
    let (mut socket, _) = soon(over_http2().connect(format!("ws://{address}"))).await.unwrap();
    exchange(&mut socket).await;
    close(&socket).await;
}

#[tokio::test]
async fn versions_are_chosen_by_alpn() {
    let (server, client) = configs();
    let connector = Connector::new().tls(client);
    let both = start(Server::new().tls(server.clone()).http2(), echo).await;
    let old = start(Server::new().tls(server), echo).await;
    let url = |address: SocketAddr| format!("wss://localhost:{}", address.port());
    for (version, address, spoken) in [
        (HttpVersion::Http1, both, Version::HTTP_11),
        (HttpVersion::Http2, both, Version::HTTP_2),
        (HttpVersion::Automatic, both, Version::HTTP_2),
        (HttpVersion::Automatic, old, Version::HTTP_11),
    ] {
        let connector = connector.clone().http_version(version);
        let (mut socket, response) = soon(connector.connect(url(address))).await.unwrap();
        assert_eq!(response.version(), spoken);
        exchange(&mut socket).await;
        close(&socket).await;
    }
    let error = soon(connector.http_version(HttpVersion::Http2).connect(url(old))).await.unwrap_err();
    // rustls refuses with an alert; other implementations would continue without ALPN.
    assert!(
        chain(&error).contains("ApplicationProtocol") || error.kind() == ErrorKind::Handshake,
        "{error:?}"
    );
}

/// RFC 8441 3: a client must not use the extended CONNECT before it has received the setting.
#[tokio::test]
async fn rfc8441_3_a_server_that_does_not_accept_websockets() {
    let (server, client) = configs();
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut config = (*server).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                tokio::spawn(async move {
                    assert!(connection.accept().await.is_none(), "nothing is asked of it");
                });
            } else {
                tokio::spawn(async move {
                    let (socket, _) = Acceptor::new().accept_stream(stream).await.unwrap();
                    echo(socket).await
                });
            }
        }
    });
    let url = format!("wss://localhost:{}", address.port());
    let connector = Connector::new().tls(client).http_version(HttpVersion::Automatic);
    let (mut socket, response) = soon(connector.connect(&url)).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_11);
    exchange(&mut socket).await;
    for error in [
        soon(connector.clone().http_version(HttpVersion::Http2).connect(&url)).await.unwrap_err(),
        soon(connector.connect_http2(&url)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Handshake);
        assert!(error.to_string().contains("SETTINGS_ENABLE_CONNECT_PROTOCOL"), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_http2() {
    let address = start(Server::new(), echo).await;
    let error = soon(over_http2().connect(format!("ws://{address}"))).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Handshake | ErrorKind::Disconnected), "{error:?}");
}

#[tokio::test]
async fn rfc8441_4_rejections() {
    let ours = start(Server::new().http2(), echo).await;
    let under_hyper = serve_with_hyper().await;
    for address in [ours, under_hyper] {
        let refused = async |change: fn(&mut http::Request<String>)| {
            let mut request = connect_request();
            change(&mut request);
            let stream = TcpStream::connect(address).await.unwrap();
            let response = soon(refusal(stream, request)).await;
            assert!(response.body().ends_with('\n'), "the reason comes with it");
            response
        };
        let foreign = refused(|request| {
            request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
        });
        assert_eq!(foreign.await.status(), 403);
        let version = refused(|request| {
            request.headers_mut().insert("sec-websocket-version", "12".parse().unwrap());
        });
        let version = version.await;
        assert_eq!(
            (version.status(), &version.headers()["sec-websocket-version"]),
            (StatusCode::BAD_REQUEST, &"13".parse().unwrap())
        );
        let protocol = refused(|request| {
            request.extensions_mut().insert(hyper::ext::Protocol::from_static("connect-udp"));
        });
        assert_eq!(protocol.await.status(), 501);
        let get = refused(|request| {
            *request.method_mut() = Method::GET;
            request.extensions_mut().clear();
        });
        assert_eq!(get.await.status(), 405);
    }
}

#[tokio::test]
async fn what_is_agreed_on_is_as_over_http1() {
    let acceptor = Acceptor::new().subprotocols(["b", "a"]).compression(Compression::ContextTakeover);
    let server = Server::new().acceptor(acceptor).http2().on_request(|mut head| async move {
        assert_eq!((head.method.as_str(), head.uri.path()), ("CONNECT", "/chat"));
        assert_eq!(head.headers["cookie"], "a=b");
        assert!(head.extensions.get::<SocketAddr>().is_some());
        head.extensions.insert("checked");
        Ok(head)
    });
    let address = start(server, |head: http::request::Parts, socket: WebSocket| async move {
        assert_eq!(head.extensions.get::<&str>(), Some(&"checked"));
        echo(socket).await
    })
    .await;
    // A page of this server's origin.
    let connector = over_http2()
        .header("cookie", "a=b")
        .origin(format!("http://{address}"))
        .subprotocols(["a", "b"])
        .compression(Compression::ContextTakeover);
    let (mut socket, response) = soon(connector.connect(format!("ws://{address}/chat"))).await.unwrap();
    assert_eq!(socket.subprotocol(), Some("b"));
    assert!(!format!("{response:?}").contains("\"b\""), "it may be a token: {response:?}");
    assert!(socket.compression().is_some());
    exchange(&mut socket).await;
    close(&socket).await;
}

/// RFC 8441 5.1: data may follow the request before the response.
#[tokio::test]
async fn data_before_the_response() {
    let address = start(Server::new().http2(), echo).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // Before the settings are known, too.
    let (response, mut send) = requests.ready().await.unwrap().send_request(h2_request(), false).unwrap();
    send.send_data(Frame::text("early").encode(Role::Client).into(), false).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    let mut data = next_data(&mut body).await.unwrap();
    assert_eq!(take_frames(Role::Server, &mut data), [Frame::text("early")]);
}

fn h2_request() -> http::Request<()> {
    let mut request = connect_request().map(drop);
    request.extensions_mut().clear();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request
}

// ---- many on one connection

#[tokio::test]
async fn many_on_one_connection() {
    let address = start(Server::new().http2(), echo).await;
    let connection = connection_to(address).await;
    let tasks: Vec<_> = (0..300)
        .map(|number| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let (mut socket, _) = soon(connection.connect(format!("/{number}"))).await.unwrap();
                socket.send("hello").await.unwrap();
                assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
                close(&socket).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(!connection.is_closed());
}

/// Messages that were gathered are written in one piece, or in several if the windows are smaller.
#[tokio::test]
async fn gathered_messages_of_any_size_pass_windows_of_any_size() {
    for window in [16 * 1024, 20_000, 256 * 1024] {
        let limits = Limits::default().stream_window(window);
        let server = Server::new().acceptor(Acceptor::new().limits(limits.clone())).http2();
        let connector = over_http2().limits(limits);
        let url = format!("ws://{}/", start(server, echo).await);
        let (mut socket, _) = soon(connector.connect(url)).await.unwrap();
        for (size, count) in [(1_000, 3), (1_000, 5), (1_000, 16), (100, 300), (9_000, 2), (1_000, 30)] {
            let bytes = (0..=u8::MAX).cycle().take(count).enumerate();
            let messages: Vec<_> = bytes.map(|(number, byte)| vec![byte; size + number]).collect();
            let sender = socket.sender();
            let batch = sender.batch();
            for message in &messages {
                batch.try_send(message).unwrap();
            }
            drop(batch);
            for message in messages {
                assert_eq!(soon(socket.recv()).await.unwrap(), Some(message.into()));
            }
        }
        close(&socket).await;
    }
}

#[tokio::test]
async fn the_streams_that_a_server_allows_are_waited_for() {
    let acceptor = Acceptor::new().limits(Limits::default().max_streams(2));
    let (address, mut sockets) = serve_by_hand(Server::new().acceptor(acceptor).http2()).await;
    let connection = connection_to(address).await;
    let connect = || {
        let connection = connection.clone();
        tokio::spawn(async move { connection.connect("/").await.unwrap().0 })
    };
    let first = soon(connect()).await.unwrap();
    let second = soon(connect()).await.unwrap();
    let accepted = [soon(sockets.recv()).await.unwrap(), soon(sockets.recv()).await.unwrap()];
    // Two waiting attempts that are dropped must not take a slot.
    for impatient in [connect(), connect()] {
        support::settle().await;
        impatient.abort();
        assert!(impatient.await.unwrap_err().is_cancelled());
    }
    let third = connect();
    support::settle().await;
    assert!(!third.is_finished() && sockets.try_recv().is_err());
    close(&first).await;
    let third = soon(third).await.unwrap();
    let _third_accepted = soon(sockets.recv()).await.unwrap();
    close(&second).await;
    let _fourth = soon(connect()).await.unwrap();
    drop((third, accepted));
}

#[tokio::test]
async fn a_server_that_shuts_down() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (listener, address) = listen().await;
    let server = Server::new().http2().shutdown(async { drop(stopped.await) }, Duration::from_secs(5));
    let serving = tokio::spawn(server.serve(listener, echo));
    let connection = connection_to(address).await;
    let (mut one, _) = soon(connection.connect("/")).await.unwrap();
    let (mut two, _) = soon(connection.connect("/")).await.unwrap();
    drop(stop);
    for socket in [&mut one, &mut two] {
        assert_eq!(soon(socket.recv()).await.unwrap(), None);
        assert_eq!(socket.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
    }
    let shutdown = soon(serving).await.unwrap().unwrap();
    assert_eq!((shutdown.closed(), shutdown.ended()), (2, 0));
    drop((one, two));
    let error = soon(connection.closed()).await;
    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
    assert!(connection.is_closed());
    let error = soon(connection.connect("/")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Io), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_nobody_uses_ends() {
    let limits = Limits::default().handshake_timeout(Duration::from_millis(50));
    let server = Server::new().acceptor(Acceptor::new().limits(limits)).http2();
    let (address, mut sockets) = serve_by_hand(server).await;
    // One client that sends nothing, and one that sends only the preface.
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(soon(silent.read(&mut [0])).await.unwrap(), 0);
    let idle = connection_to(address).await;
    soon(idle.closed()).await;
    // One with a WebSocket stays.
    let used = connection_to(address).await;
    let (socket, _) = soon(used.connect("/")).await.unwrap();
    let _accepted = soon(sockets.recv()).await.unwrap();
    let idle = connection_to(address).await;
    soon(idle.closed()).await;
    assert!(!used.is_closed() && !socket.sender().is_closed());
}

// ---- the end of a stream

/// RFC 8441 5: `END_STREAM` corresponds to a FIN, a reset to RST.
#[tokio::test]
async fn rfc8441_5_a_clean_close_ends_the_stream_without_a_reset() {
    let (address, accepted) = h2_server(accepting()).await;
    let (socket, _) = soon(over_http2().connect(format!("ws://{address}"))).await.unwrap();
    let (mut receive, mut send) = accepted.await.unwrap();
    let closing = tokio::spawn(async move { socket.close(CloseCode::NORMAL, "").await });
    let mut data = next_data(&mut receive).await.unwrap();
    assert_eq!(take_frames(Role::Client, &mut data), [Frame::close(1000, "")]);
    send.send_data(Frame::close(1000, "").encode(Role::Server).into(), false).unwrap();
    // RFC 6455 7.1.1: a client waits for the server to end the transport.
    support::settle().await;
    assert!(!receive.is_end_stream());
    send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(next_data(&mut receive).await, None);
    soon(closing).await.unwrap().unwrap();

    // The other way round: a server of ours ends its direction first.
    let (address, mut sockets) = serve_by_hand(Server::new().http2()).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (response, mut send) = requests.ready().await.unwrap().send_request(h2_request(), false).unwrap();
    let mut receive = soon(response).await.unwrap().into_body();
    let socket = soon(sockets.recv()).await.unwrap();
    let closing = tokio::spawn(async move { socket.close(CloseCode::NORMAL, "").await });
    let mut data = next_data(&mut receive).await.unwrap();
    assert_eq!(take_frames(Role::Server, &mut data), [Frame::close(1000, "")]);
    send.send_data(Frame::close(1000, "").encode(Role::Client).into(), false).unwrap();
    assert_eq!(next_data(&mut receive).await, None);
    send.send_data(Bytes::new(), true).unwrap();
    soon(closing).await.unwrap().unwrap();
}

#[tokio::test]
async fn rfc8441_5_a_dropped_websocket_ends_its_stream_and_then_resets_it() {
    let (address, accepted) = h2_server(accepting()).await;
    let limits = Limits::default().close_timeout(Duration::from_millis(50));
    let connector = over_http2().limits(limits);
    let (socket, _) = soon(connector.connect(format!("ws://{address}"))).await.unwrap();
    let (mut receive, mut send) = accepted.await.unwrap();
    socket.send("last words").await.unwrap();
    drop(socket);
    let mut data = next_data(&mut receive).await.unwrap();
    assert_eq!(take_frames(Role::Client, &mut data), [Frame::text("last words")]);
    // An immediate reset would have discarded unread bytes.
    assert_eq!(next_data(&mut receive).await, None);
    let reset = soon(std::future::poll_fn(|cx| send.poll_reset(cx))).await.unwrap();
    assert_eq!(reset, Reason::CANCEL);
}

#[tokio::test]
async fn rfc8441_5_a_reset_is_an_end_without_a_close_frame() {
    // Of a client of ours, in the middle of a frame.
    let (address, accepted) = h2_server(accepting()).await;
    let (mut socket, _) = soon(over_http2().connect(format!("ws://{address}"))).await.unwrap();
    let (_receive, mut send) = accepted.await.unwrap();
    send.send_data(Bytes::from_static(&[0x82, 100, 1, 2, 3]), false).unwrap();
    assert!(support::poll_times(20, socket.recv()).await.is_none());
    send.send_reset(Reason::INTERNAL_ERROR);
    let error = soon(socket.recv()).await.unwrap_err();
    assert!(
        chain(&error).contains("without a Close frame") && chain(&error).contains("INTERNAL_ERROR"),
        "{error:?}"
    );

    // Of servers of ours.
    let (address, mut sockets) = serve_by_hand(Server::new().http2()).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (response, mut send) = requests.ready().await.unwrap().send_request(h2_request(), false).unwrap();
    soon(response).await.unwrap();
    let mut socket = soon(sockets.recv()).await.unwrap();
    send.send_reset(Reason::CANCEL);
    let error = soon(socket.recv()).await.unwrap_err();
    assert!(chain(&error).contains("without a Close frame") && chain(&error).contains("CANCEL"), "{error:?}");

    let (mut socket, peer) = support::http2::server(&Limits::default().into()).await;
    // hyper resets dropped streams with CANCEL.
    drop(peer);
    let error = soon(socket.recv()).await.unwrap_err();
    assert!(chain(&error).contains("without a Close frame"), "{error:?}");
}

#[tokio::test]
async fn the_end_of_the_connection_ends_its_websockets() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = accepting().handshake::<_, Bytes>(stream).await.unwrap();
        let mut sends = Vec::new();
        for _ in 0..2 {
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            sends.push(respond.send_response(http::Response::new(()), false).unwrap());
        }
        // This lets the responses be sent.
        let _ = support::poll_times(20, connection.accept()).await;
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let _ = connection.accept().await;
    });
    let connection = connection_to(address).await;
    let (first, second) = tokio::join!(connection.connect("/"), connection.connect("/"));
    for (mut socket, _) in [first.unwrap(), second.unwrap()] {
        let error = soon(socket.recv()).await.unwrap_err();
        assert!(chain(&error).contains("the HTTP/2 connection broke"), "{error:?}");
    }
    let error = soon(connection.closed()).await;
    assert!(chain(&error).contains("ENHANCE_YOUR_CALM"), "{error:?}");
    let error = soon(connection.connect("/")).await.unwrap_err();
    assert!(chain(&error).contains("ENHANCE_YOUR_CALM"), "{error:?}");
    server.await.unwrap();
}

#[tokio::test]
async fn each_stream_has_the_times_of_its_handshake() {
    let address = start(Server::new().http2(), echo).await;
    let connection = connection_to(address).await;
    let (_socket, response) = soon(connection.connect("/")).await.unwrap();
    let on_open = response.extensions().get::<HandshakeTimes>().expect("each handshake has times");
    assert_eq!((on_open.resolved(), on_open.connected(), on_open.secured()), (None, None, None));
    assert!(!on_open.upgraded().is_zero());
    let connector = over_http2().proxy(Proxy::none());
    let (_socket, response) = soon(connector.connect(format!("ws://{address}/"))).await.unwrap();
    let whole = response.extensions().get::<HandshakeTimes>().expect("each handshake has times");
    assert!(whole.connected().unwrap() < whole.upgraded(), "{whole:?}");
}
