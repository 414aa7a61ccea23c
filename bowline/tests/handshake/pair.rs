//! Pairs in memory with the options of both builders.

use std::error::Error as _;
use std::time::Duration;

use bowline::{Acceptor, CloseCode, Connector, ControlFrame, ErrorKind, Limits, Rejection, Role};

#[tokio::test]
async fn a_pair_agrees_as_over_a_network() {
    let connector = Connector::new().subprotocols(["v3", "v2", "v1"]);
    let acceptor = Acceptor::new().subprotocols(["v1", "v2"]).limits(Limits::default().message_size(10));
    let (mut client, mut server) = connector.pair(&acceptor).unwrap();
    assert_eq!((client.role(), server.role()), (Role::Client, Role::Server));
    assert_eq!((client.subprotocol(), server.subprotocol()), (Some("v1"), Some("v1")));
    server.send("more than 10 bytes").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Some("more than 10 bytes".into()));
    client.send("more than 10 bytes").await.unwrap();
    assert_eq!(server.recv().await.unwrap_err().kind(), ErrorKind::Limit);
    let error = client.recv().await.unwrap_err();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::MESSAGE_TOO_BIG);
}

#[cfg(feature = "deflate")]
#[tokio::test]
async fn a_pair_compresses_if_both_sides_want_that() {
    use bowline::Compression;

    let connector = Connector::new().compression(Compression::NoContextTakeover);
    let (client, server) = connector.pair(&Acceptor::new()).unwrap();
    assert_eq!((client.compression(), server.compression()), (None, None));
    let acceptor = Acceptor::new().compression(Compression::ContextTakeover);
    let (client, mut server) = connector.pair(&acceptor).unwrap();
    assert!(client.compression().is_some() && client.compression() == server.compression());
    let message = "compressible ".repeat(1000);
    client.send(&message).await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some(message.into()));
}

#[tokio::test(start_paused = true)]
async fn a_pair_has_the_keepalive_and_the_hook_of_its_builders() {
    let (seen, mut frames) = tokio::sync::mpsc::unbounded_channel();
    let connector = Connector::new().keepalive(None).on_control(move |frame| seen.send(frame).unwrap());
    let acceptor = Acceptor::new().keepalive(Duration::from_secs(3600));
    let (_client, _server) = connector.pair(&acceptor).unwrap();
    let start = tokio::time::Instant::now();
    assert!(matches!(frames.recv().await, Some(ControlFrame::Ping(_))));
    assert!(start.elapsed() >= Duration::from_secs(3600), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_pair_is_refused_as_over_a_network() {
    let foreign = Connector::new().origin("https://evil.example");
    let error = foreign.pair(&Acceptor::new()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert_eq!(error.source().unwrap().downcast_ref::<Rejection>().unwrap().status(), 403);
    assert!(foreign.pair(&Acceptor::new().allow_origin("evil.example")).is_ok());

    let limits = Limits::default().write_buffer(0);
    let invalid = [
        Connector::new().limits(limits.clone()).pair(&Acceptor::new()),
        Connector::new().pair(&Acceptor::new().limits(limits)),
    ];
    for refused in invalid {
        let error = refused.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("Limits::write_buffer"), "{error}");
    }
}
