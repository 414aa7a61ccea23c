//! Each server of the page, with a client of bowline.

use bowline::{HttpVersion, Message};
use tokio::net::{UnixListener, UnixStream};

use crate::programs;
use crate::support::{
    certificates, connector, expect_echo, expect_echo_on, soon, start, status_of_foreign_origin,
};

#[tokio::test]
async fn axum() {
    let authority = start(programs::axum::serve).await;
    expect_echo(&format!("ws://{authority}/echo")).await;
    assert_eq!(status_of_foreign_origin(&format!("ws://{authority}/echo")).await, 403);
}

#[tokio::test]
async fn axum_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    tokio::spawn(programs::axum_over_a_unix_socket::serve(UnixListener::bind(&path).unwrap()));
    let stream = UnixStream::connect(&path).await.unwrap();
    let (mut socket, _) = soon(connector().connect_over("ws://localhost/", stream)).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
    assert_eq!(soon(socket.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn axum_server() {
    let certificates = certificates();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("wss://localhost:{}/echo", listener.local_addr().unwrap().port());
    tokio::spawn(programs::axum_server::serve(listener, certificates.server));
    let connector = connector().tls(certificates.client);
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let (socket, response) = soon(connector.clone().http_version(version).connect(&url)).await.unwrap();
        assert_eq!(response.status().as_u16(), if version == HttpVersion::Http1 { 101 } else { 200 });
        expect_echo_on(socket).await;
    }
}

#[tokio::test]
async fn hyper() {
    let authority = start(programs::hyper::serve).await;
    expect_echo(&format!("ws://{authority}/")).await;
}

#[tokio::test]
async fn hyper_util() {
    let authority = start(programs::hyper_util::serve).await;
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let connector = connector().http_version(version);
        let (mut socket, _) = soon(connector.connect(format!("ws://{authority}/"))).await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some(Message::from("hello")));
    }
}
