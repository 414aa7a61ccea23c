//! The opening handshake of a server: RFC 6455 4.2.

use std::time::Duration;

use bowline::{Acceptor, Adoption, ErrorKind, Limits, Rejection, Role, Server};
use http::{HeaderValue, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;

use crate::support::frames::{Frame, take_frames};
use crate::support::http::{ACCEPT, Head, KEY, echo, exchange, listen, read_head, soon, start, upgrade};

/// Returns rejected requests, with the status and an expected header of the response, if any.
fn rejected() -> Vec<(Head, u16, &'static str)> {
    let request = Head::request;
    let upgrade = "upgrade: websocket";
    let version = "sec-websocket-version: 13";
    let key = |key: &str| request().replace(&format!("Sec-WebSocket-Key: {key}"));
    vec![
        (request().first_line("POST /chat HTTP/1.1"), 405, "allow: GET"),
        (request().first_line("HEAD /chat HTTP/1.1"), 405, "allow: GET"),
        (request().first_line("GET /chat HTTP/1.0"), 426, upgrade),
        (request().without("upgrade"), 426, upgrade),
        (request().without("connection"), 426, upgrade),
        (request().without("connection"), 426, version),
        (request().without("connection"), 426, "connection: Upgrade"),
        (request().replace("Upgrade: h2c"), 426, upgrade),
        (request().replace("Upgrade: websockets"), 426, upgrade),
        (request().replace("Connection: keep-alive"), 426, upgrade),
        (request().without("sec-websocket-version"), 400, version),
        (request().replace("Sec-WebSocket-Version: 8"), 400, version),
        (request().replace("Sec-WebSocket-Version: 13, 8"), 400, version),
        (request().with("Sec-WebSocket-Version: 13"), 400, version),
        (request().without("sec-websocket-key"), 400, ""),
        (request().with(&format!("Sec-WebSocket-Key: {KEY}")), 400, ""),
        (key(""), 400, ""),
        (key("dGhlIHNhbXBsZSBub25jZQ"), 400, ""),
        (key("dGhlIHNhbXBsZSBub25jZQ=!"), 400, ""),
        // 15 bytes and 17 bytes.
        (key("AAAAAAAAAAAAAAAAAAAA"), 400, ""),
        (key("AAAAAAAAAAAAAAAAAAAAAAA="), 400, ""),
        (request().without("host"), 400, ""),
        (request().with("Host: example.com"), 400, ""),
        (request().with("Origin: https://evil.example"), 403, ""),
        (request().with("Sec-WebSocket-Protocol: a b"), 400, ""),
        (request().with("Sec-WebSocket-Extensions: ;"), 400, ""),
        (request().with("Content-Length: 5"), 400, ""),
        (request().with("Transfer-Encoding: chunked"), 400, ""),
    ]
}

#[tokio::test]
async fn rfc6455_4_2_1_rejections_of_accept() {
    for (request, status, header) in rejected() {
        let rejection = bowline::accept::<_, ()>(&mut request.to_request()).expect_err("it is rejected");
        assert_eq!(rejection.status(), status, "{request:?}");
        let response: Response<String> = rejection.into_response();
        if let Some((name, value)) = header.split_once(": ") {
            assert_eq!(response.headers()[name], value, "{request:?}");
        }
        assert!(response.body().len() > 10, "{request:?} is explained");
    }
}

#[tokio::test]
async fn rfc6455_4_2_1_rejections_of_serve() {
    let address = start(Server::new(), echo).await;
    for (request, status, header) in rejected() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (head, body) = exchange(&mut stream, &request).await;
        assert_eq!(head.status(), status, "{request:?}");
        if let Some((name, value)) = header.split_once(": ") {
            // `Connection` also says that the connection is closed.
            assert!(head.get(name).is_some_and(|found| found.starts_with(value)), "{head:?}");
        }
        if !request.text().starts_with("HEAD") {
            assert!(body.len() > 10, "{request:?} is explained");
        }
    }
}

#[tokio::test]
async fn rfc6455_4_2_1_rejections_of_accept_stream() {
    for (request, status, _) in rejected() {
        let (mut client, server) = duplex(4096);
        let server = tokio::spawn(async move { Acceptor::new().accept_stream(server).await });
        let (head, _) = exchange(&mut client, &request).await;
        assert_eq!(head.status(), status, "{request:?}");
        drop(client);
        let error = soon(server).await.unwrap().expect_err("it is rejected");
        assert_eq!(error.kind(), ErrorKind::Handshake);
        let source = std::error::Error::source(&error).expect("the rejection");
        assert_eq!(source.downcast_ref::<Rejection>().expect("the rejection").status(), status);
    }
}

#[test]
fn rfc6455_8_1_subprotocols_that_are_not_text_are_refused() {
    for name in ["sec-websocket-protocol", "sec-websocket-extensions"] {
        let mut request = Head::request().to_request();
        request.headers_mut().insert(name, HeaderValue::from_bytes(b"v1\xFF").unwrap());
        let rejection = bowline::accept::<_, ()>(&mut request).expect_err("it is not UTF-8");
        assert_eq!(rejection.status(), StatusCode::BAD_REQUEST, "{name}");
    }
}

#[test]
fn rfc6455_4_2_1_a_subprotocol_that_is_no_token_is_found_but_not_told() {
    for (lines, named) in [
        (&["chat, bearer secret, v1"][..], "element 2 has ' '"),
        (&["secret/1"], "element 1 has '/'"),
        (&[",, a , b", "secret=", "c d"], "element 3 has '='"),
    ] {
        let request = lines
            .iter()
            .fold(Head::request(), |request, line| request.with(&format!("Sec-WebSocket-Protocol: {line}")));
        let rejection =
            bowline::accept::<_, ()>(&mut request.to_request()).expect_err("it is no list of tokens");
        assert_eq!(rejection.status(), StatusCode::BAD_REQUEST);
        let text = rejection.to_string();
        assert!(text.contains(named) && text.contains("Sec-WebSocket-Protocol"), "{text}");
        // Pages in browsers have no other place for a token.
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn requests_without_hypers_upgrade_are_a_500_that_says_so() {
    let rejection = bowline::accept::<_, ()>(&mut Head::request().to_request()).expect_err("no upgrade");
    assert_eq!(rejection.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(rejection.to_string().contains("without upgrades"), "{rejection}");
}

#[tokio::test]
async fn rfc6455_4_2_2_the_response_accepts() {
    let address = start(Server::new(), echo).await;
    let (_, head) = upgrade(address, &Head::request()).await;
    assert_eq!(head.get("sec-websocket-accept").as_deref(), Some(ACCEPT));
    assert_eq!(head.get("upgrade").as_deref(), Some("websocket"));
    assert_eq!(head.get("connection").as_deref(), Some("Upgrade"));
    assert_eq!(head.get("sec-websocket-protocol"), None);
    assert_eq!(head.get("sec-websocket-extensions"), None);
}

#[tokio::test]
async fn rfc6455_4_2_1_case_spacing_and_lists_make_no_difference() {
    let address = start(Server::new(), echo).await;
    for request in [
        Head::request().replace("uPGRADE: WebSocket").replace("connection: keep-alive,  UPGRADE"),
        Head::request().with("Connection: keep-alive"),
        Head::request().replace("Connection: keep-alive").with("Connection: upgrade"),
        Head::request().replace("Upgrade: h2c, websocket"),
        Head::request().replace("Upgrade: h2c").with("Upgrade: websocket"),
        Head::request().replace(&format!("Sec-WebSocket-Key:   {KEY}  ")),
        Head::request().first_line("GET http://example.com/chat?a=b HTTP/1.1"),
        Head::request()
            .with("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x; y=\"z\""),
    ] {
        upgrade(address, &request).await;
    }
}

#[tokio::test]
async fn rfc6455_4_2_2_the_server_prefers_a_subprotocol() {
    let acceptor = Acceptor::new().subprotocols(["v2", "v1"]);
    let address = start(Server::new().acceptor(acceptor), echo).await;
    for (offer, chosen) in [
        ("v1, v2", Some("v2")),
        ("v1,other", Some("v1")),
        ("other", None),
        ("V2", None),
        (",, v1 ,", Some("v1")),
    ] {
        let request = Head::request().with(&format!("Sec-WebSocket-Protocol: {offer}"));
        let (_, head) = upgrade(address, &request).await;
        assert_eq!(head.get("sec-websocket-protocol").as_deref(), chosen, "{offer}");
    }
    let two_lines = Head::request().with("Sec-WebSocket-Protocol: other").with("Sec-WebSocket-Protocol: v2");
    let (_, head) = upgrade(address, &two_lines).await;
    assert_eq!(head.get("sec-websocket-protocol").as_deref(), Some("v2"));
}

/// Returns whether a request with this Host and Origin is accepted.
fn is_allowed(acceptor: &Acceptor, host: &str, origin: &str) -> bool {
    let request = Head::request().replace(&format!("Host: {host}")).with(&format!("Origin: {origin}"));
    let rejection = acceptor.accept::<_, ()>(&mut request.to_request()).expect_err("no upgrade is in it");
    match rejection.status() {
        StatusCode::FORBIDDEN => false,
        StatusCode::INTERNAL_SERVER_ERROR => true,
        status => panic!("{status} for {request:?}"),
    }
}

#[test]
fn rfc6455_10_2_origins_of_the_same_host_and_port_are_allowed() {
    let acceptor = Acceptor::new();
    for (host, origin, expected) in [
        ("example.com", "http://example.com", true),
        ("example.com", "https://example.com", true),
        ("Example.COM", "HTTPS://example.com", true),
        ("example.com:443", "https://example.com", true),
        ("example.com", "https://example.com:443", true),
        ("example.com:80", "http://example.com", true),
        ("example.com:8080", "http://example.com:8080", true),
        ("[::1]:8080", "http://[::1]:8080", true),
        ("example.com:80", "https://example.com", false),
        ("example.com:8080", "http://example.com", false),
        ("example.com", "http://example.com:8080", false),
        ("example.com", "http://other.example", false),
        ("example.com", "http://www.example.com", false),
        ("example.com", "http://example.com.evil.example", false),
        ("example.com", "http://evil.example/example.com", false),
        ("example.com", "http://example.com@evil.example", false),
        ("example.com", "http://example.com/", false),
        ("example.com", "example.com", false),
        ("example.com", "null", false),
        ("example.com", "", false),
        ("null", "null", false),
        ("example.com", "http://", false),
        // No page is loaded from a host by another scheme.
        ("example.com:21", "ftp://example.com:21", false),
        ("example.com", "ws://example.com", false),
        ("example.com", "file://example.com", false),
        ("abcdef", "chrome-extension://abcdef", false),
    ] {
        assert_eq!(is_allowed(&acceptor, host, origin), expected, "{origin} at {host}");
    }
    let twice = Head::request().with("Origin: http://example.com").with("Origin: http://example.com");
    let rejection = acceptor.accept::<_, ()>(&mut twice.to_request()).unwrap_err();
    assert_eq!(rejection.status(), StatusCode::FORBIDDEN);
}

#[test]
fn rfc6455_10_2_origin_patterns() {
    for (pattern, origin, expected) in [
        ("app.example", "https://app.example", true),
        ("app.example", "http://app.example", true),
        ("APP.example", "http://app.EXAMPLE", true),
        ("app.example", "https://app.example:8443", false),
        ("app.example", "https://sub.app.example", false),
        ("app.example:8443", "https://app.example:8443", true),
        ("app.example:8443", "https://app.example", false),
        ("https://app.example", "https://app.example", true),
        ("https://app.example", "https://app.example:443", true),
        ("https://app.example", "http://app.example", false),
        ("https://app.example", "http://app.example:443", false),
        ("*.app.example", "https://a.app.example", true),
        ("*.app.example", "https://a.b.app.example", true),
        ("*.app.example", "https://app.example", false),
        ("*.app.example", "https://.app.example", false),
        ("*.app.example", "https://evilapp.example", false),
        ("*.app.example", "https://a.app.example.evil.example", false),
        ("https://*.app.example:8443", "https://a.app.example:8443", true),
        ("https://*.app.example:8443", "https://a.app.example", false),
        ("chrome-extension://abcdef", "chrome-extension://abcdef", true),
        ("chrome-extension://abcdef", "chrome-extension://abcdeg", false),
        ("[::1]:3000", "http://[::1]:3000", true),
        ("*", "https://anything.example:1", true),
        ("*", "null", true),
        ("null", "null", true),
        ("null", "https://null", false),
        ("null", "", false),
        ("null", "NULL", false),
        ("null", "https://other.example", false),
        ("https://null", "null", false),
    ] {
        let acceptor = Acceptor::new().allow_origin(pattern);
        assert_eq!(is_allowed(&acceptor, "example.com", origin), expected, "{origin} with {pattern}");
        assert!(is_allowed(&acceptor, "example.com", "https://example.com"), "its own is still allowed");
    }
    let several = Acceptor::new().allow_origin("a.example").allow_origin("b.example");
    assert!(is_allowed(&several, "example.com", "https://a.example"));
    assert!(is_allowed(&several, "example.com", "https://b.example"));
}

#[test]
fn rfc6455_10_2_a_request_over_tls_is_not_of_the_origin_without() {
    for (target, origin, expected) in [
        ("https://example.com/chat", "https://example.com", true),
        ("https://example.com/chat", "HTTPS://example.com:443", true),
        ("https://example.com/chat", "http://example.com", false),
        ("https://example.com/chat", "http://example.com:443", false),
        // A proxy may have ended TLS.
        ("http://example.com/chat", "https://example.com", true),
        ("http://example.com/chat", "http://example.com", true),
    ] {
        let request = Head::request().first_line(&format!("GET {target} HTTP/1.1"));
        let mut request = request.with(&format!("Origin: {origin}")).to_request();
        let rejection = bowline::accept::<_, ()>(&mut request).expect_err("no upgrade is in it");
        let is_allowed = rejection.status() == StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(is_allowed, expected, "{origin} at {target}: {rejection}");
        let acceptor = Acceptor::new().allow_origin(origin);
        let rejection = acceptor.accept::<_, ()>(&mut request).expect_err("no upgrade is in it");
        assert_eq!(rejection.status(), StatusCode::INTERNAL_SERVER_ERROR, "a pattern decides");
    }
}

#[test]
fn a_closure_decides_about_other_origins() {
    let acceptor =
        Acceptor::new().check_origin(|origin, headers| origin == "null" && headers.contains_key("host"));
    assert!(is_allowed(&acceptor, "example.com", "null"));
    assert!(is_allowed(&acceptor, "example.com", "https://example.com"));
    assert!(!is_allowed(&acceptor, "example.com", "https://other.example"));
}

#[tokio::test]
async fn options_that_make_no_sense_are_named() {
    for (acceptor, named) in [
        (Acceptor::new().subprotocols(["fine", "not fine"]), "not fine"),
        (Acceptor::new().allow_origin("https://example.com/path"), "https://example.com/path"),
        (Acceptor::new().allow_origin("a.*.example"), "a.*.example"),
        (Acceptor::new().allow_origin(""), "\"\""),
        (Acceptor::new().keepalive(Duration::ZERO), "keepalive"),
    ] {
        let rejection = acceptor.accept::<_, ()>(&mut Head::request().to_request()).unwrap_err();
        assert_eq!(rejection.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(rejection.to_string().contains(named), "{rejection}");

        let (_client, stream) = duplex(64);
        let error = acceptor.accept_stream(stream).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(named), "{error}");

        let (listener, _) = listen().await;
        let error = Server::new().acceptor(acceptor).serve(listener, echo).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

/// Returns a request followed by frames in the same packet.
fn pipelined() -> Vec<u8> {
    let mut bytes = Head::request().text().into_bytes();
    bytes.extend(Frame::text("first").encode(Role::Client));
    bytes.extend(Frame::text("second").encode(Role::Client));
    bytes
}

#[tokio::test]
async fn frames_behind_the_request_are_not_lost_by_serve() {
    let address = start(Server::new(), echo).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&pipelined()).await.unwrap();
    assert_eq!(read_head(&mut stream).await.status(), 101);
    let mut bytes = Vec::new();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        assert_ne!(soon(stream.read_buf(&mut bytes)).await.unwrap(), 0);
        frames.extend(take_frames(Role::Server, &mut bytes));
    }
    assert_eq!(frames, [Frame::text("first"), Frame::text("second")]);
}

#[tokio::test]
async fn frames_behind_the_request_are_not_lost_by_accept_stream() {
    let (mut client, server) = duplex(4096);
    client.write_all(&pipelined()).await.unwrap();
    let (mut socket, head) = soon(Acceptor::new().accept_stream(server)).await.unwrap();
    assert_eq!(head.uri, "/chat");
    assert_eq!(socket.recv().await.unwrap(), Some("first".into()));
    assert_eq!(socket.recv().await.unwrap(), Some("second".into()));
}

#[tokio::test]
async fn leftover_bytes_of_an_adopted_stream_are_not_lost() {
    let (_client, server) = duplex(4096);
    let leftover = Frame::text("left over").encode(Role::Client);
    let mut socket =
        Acceptor::new().adopt(server, Adoption::new().leftover(leftover).subprotocol("v1")).unwrap();
    assert_eq!(socket.subprotocol(), Some("v1"));
    assert_eq!(socket.recv().await.unwrap(), Some("left over".into()));
}

#[tokio::test]
async fn heads_over_the_limits_are_431() {
    let limits = Limits::default().head_size(8 * 1024).max_headers(10);
    let long = Head::request().with(&format!("x-long: {}", "a".repeat(8 * 1024)));
    let many = (0..10).fold(Head::request(), |head, number| head.with(&format!("x-{number}: a")));
    for request in [long, many] {
        // Over TCP, where a reset would discard the response.
        let (listener, address) = listen().await;
        let asking = async {
            let mut client = TcpStream::connect(address).await.unwrap();
            exchange(&mut client, &request).await.0
        };
        let answering = async {
            let (server, _) = listener.accept().await.unwrap();
            soon(Acceptor::new().limits(limits.clone()).accept_stream(server)).await.unwrap_err()
        };
        let (response, error) = tokio::join!(asking, answering);
        assert_eq!(response.status(), 431);
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.to_string().contains("Limits::head_size"), "{error}");
        assert!(error.to_string().contains("Limits::max_headers"), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_an_error() {
    let (mut client, server) = duplex(4096);
    client.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let error = soon(Acceptor::new().accept_stream(server)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_disconnected() {
    let (client, server) = duplex(4096);
    drop(client);
    let error = soon(Acceptor::new().accept_stream(server)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_a_byte_a_second_times_out() {
    let (mut client, server) = duplex(4096);
    tokio::spawn(async move {
        for byte in Head::request().text().bytes() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if client.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let start = tokio::time::Instant::now();
    let error = Acceptor::new().accept_stream(server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(error.to_string().contains("Limits::handshake_timeout"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_whose_response_is_never_sent_times_out() {
    // Only hyper creates its upgrade, so its service is called, and never answers.
    let (mut client, server) = duplex(4096);
    client.write_all(Head::request().text().as_bytes()).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        let sender = sender.clone();
        async move {
            let (_, upgrade) = bowline::accept::<_, String>(&mut request).unwrap();
            sender.send(upgrade).await.unwrap();
            std::future::pending::<Result<Response<String>, std::convert::Infallible>>().await
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(hyper_util::rt::TokioIo::new(server), service)
        .with_upgrades();
    tokio::spawn(connection);
    let error = receiver.recv().await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[test]
fn rejections_carry_any_response() {
    let rejection = Rejection::from(StatusCode::UNAUTHORIZED);
    assert_eq!(rejection.to_string(), "401 Unauthorized");
    let response = Response::builder().status(403).body(String::new()).unwrap();
    assert_eq!(Rejection::from(response).to_string(), "403 Forbidden");
    let response = Response::builder().status(403).body("banned\n".to_owned()).unwrap();
    assert_eq!(Rejection::from(response).to_string(), "403 Forbidden: banned");
    let response =
        Response::builder().status(429).header("retry-after", "7").body("later".to_owned()).unwrap();
    let response: Response<String> = Rejection::from(response).into_response();
    assert_eq!(response.headers()["retry-after"], "7");
    assert_eq!(response.body(), "later");
}
