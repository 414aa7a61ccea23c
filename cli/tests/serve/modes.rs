//! Echo and broadcast, and the options of the server.

use std::sync::Arc;

use bowline::rustls::pki_types::CertificateDer;
use bowline::rustls::pki_types::pem::PemObject;
use bowline::rustls::{ClientConfig, RootCertStore};
use bowline::{CloseCode, Compression, Connector, ErrorKind, HttpVersion, Limits, Message};

use crate::process::{Running, end_of, text, within};

#[tokio::test]
async fn each_message_is_returned() {
    let server = Running::start(&[]).await;
    let connector = Connector::new().limits(Limits::default().message_size(64 * 1024 * 1024));
    let (mut socket, _) = within(connector.connect(&server.url)).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(text(&mut socket).await, "hello");
    let large = vec![7; 63 * 1024 * 1024];
    socket.send(&large).await.unwrap();
    assert_eq!(within(socket.recv()).await.unwrap(), Some(Message::from(large)));
    assert_eq!(within(socket.close(CloseCode::NORMAL, "")).await.unwrap().code(), CloseCode::NORMAL);
}

#[tokio::test]
async fn messages_over_the_limit_are_refused() {
    let server = Running::start(&["--max-size", "1K"]).await;
    let mut socket = server.connect().await;
    socket.send(&vec![0; 1025]).await.unwrap();
    let error = end_of(&mut socket).await.unwrap();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::MESSAGE_TOO_BIG);
}

#[tokio::test]
async fn a_broadcast_reaches_all_in_one_order() {
    let server = Running::start(&["--broadcast"]).await;
    let mut clients = [server.connect().await, server.connect().await, server.connect().await];
    // An answer shows that the client has joined.
    for joined in 0..clients.len() {
        clients[joined].send(format!("joined {joined}")).await.unwrap();
        for client in &mut clients[..=joined] {
            while text(client).await != format!("joined {joined}") {}
        }
    }
    for number in 0..100 {
        clients[number % 3].send(format!("{number}")).await.unwrap();
    }
    let mut orders = Vec::new();
    for client in &mut clients {
        let mut order = Vec::new();
        while order.len() < 100 {
            let text = text(client).await;
            if !text.starts_with("joined") {
                order.push(text);
            }
        }
        orders.push(order);
    }
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[0], orders[2]);
}

#[tokio::test]
async fn a_slow_client_of_a_broadcast_is_closed_and_others_are_not() {
    let server = Running::start(&["--broadcast"]).await;
    let mut slow = server.connect().await;
    slow.send("joined").await.unwrap();
    assert_eq!(text(&mut slow).await, "joined");
    let mut speaker = server.connect().await;
    let block = vec![0; 256 * 1024];
    for _ in 0..200 {
        speaker.send(&block).await.unwrap();
        assert_eq!(within(speaker.recv()).await.unwrap().unwrap().len(), block.len());
    }
    let error = end_of(&mut slow).await.unwrap();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::TRY_AGAIN_LATER, "{error}");
}

#[tokio::test]
async fn subprotocols_and_compression_are_negotiated() {
    let server = Running::start(&["-s", "b", "-s", "a", "-z"]).await;
    let connector = Connector::new().subprotocols(["a", "b"]).compression(Compression::ContextTakeover);
    let (socket, _) = within(connector.connect(&server.url)).await.unwrap();
    assert_eq!(socket.subprotocol(), Some("b"));
    assert!(socket.compression().is_some());
}

#[tokio::test]
async fn tls_and_http2_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let options = ["--http2", "--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let server = Running::start_at("localhost:0", &options).await;

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(bowline::crypto_provider().unwrap())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let port = server.authority().rsplit_once(':').unwrap().1;
    let url = format!("wss://localhost:{port}");
    let connector = Connector::new().tls(Arc::new(config));
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let (mut socket, _) = within(connector.clone().http_version(version).connect(&url)).await.unwrap();
        socket.send("over TLS").await.unwrap();
        assert_eq!(text(&mut socket).await, "over TLS");
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_unless_allowed() {
    let strict = Running::start(&[]).await;
    let open = Running::start(&["--allow-origin", "https://example.com"]).await;
    let page = Connector::new().origin("https://example.com");
    let error = within(page.connect(&strict.url)).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 403);
    within(page.connect(&open.url)).await.unwrap();
}

#[tokio::test]
async fn a_page_whose_name_was_pointed_at_this_machine_is_refused() {
    let server = Running::start(&[]).await;
    let rebound = Connector::new().origin("http://evil.example").host("evil.example");
    let error = within(rebound.connect(&server.url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert_eq!(error.response().unwrap().status(), 403);
    // An origin that is allowed allows no other.
    let other = Running::start(&["--allow-origin", "localhost:3000"]).await;
    let error = within(rebound.connect(&other.url)).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 403);
    let named = Running::start(&["--allow-origin", "http://evil.example"]).await;
    within(rebound.connect(&named.url)).await.unwrap();
    let own = Connector::new().origin("http://localhost:1").host("localhost:1");
    within(own.connect(&server.url)).await.unwrap();
}
