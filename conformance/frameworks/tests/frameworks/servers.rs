//! Each server of the page, with a client of bowline.

use bowline::{CloseCode, HttpVersion};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::programs;
use crate::support::{
    certificates, connector, expect_echo, expect_greeting, soon, start, status_of_foreign_origin,
};

#[tokio::test]
async fn axum() {
    let (signal, signalled) = oneshot::channel::<()>();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/echo", listener.local_addr().unwrap());
    let serving = tokio::spawn(programs::axum::serve(listener, async {
        let _ = signalled.await;
    }));
    expect_echo(&url).await;
    assert_eq!(status_of_foreign_origin(&url).await, 403);

    let (mut socket, _) = soon(connector().connect(&url)).await.unwrap();
    signal.send(()).unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), None);
    assert_eq!(socket.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
    soon(serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn axum_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    tokio::spawn(programs::axum_over_a_unix_socket::serve(UnixListener::bind(&path).unwrap()));
    let stream = UnixStream::connect(&path).await.unwrap();
    expect_greeting(soon(connector().connect_over("ws://localhost/", stream)).await.unwrap().0).await;
}

#[tokio::test]
async fn axum_server() {
    let certificates = certificates();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(programs::axum_server::serve(listener, certificates.server));
    let connector = connector().tls(certificates.client);
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let (socket, response) = soon(connector.clone().http_version(version).connect(&url)).await.unwrap();
        assert_eq!(response.status().as_u16(), if version == HttpVersion::Http1 { 101 } else { 200 });
        expect_greeting(socket).await;
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
        let (socket, _) = soon(connector.connect(format!("ws://{authority}/"))).await.unwrap();
        expect_greeting(socket).await;
    }
}

#[tokio::test]
async fn tonic() {
    let authority = start(programs::tonic::serve).await;
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let connector = connector().http_version(version);
        let (socket, _) = soon(connector.connect(format!("ws://{authority}/feed"))).await.unwrap();
        expect_greeting(socket).await;
    }
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{authority}")).unwrap();
    let mut health = HealthClient::new(soon(endpoint.connect()).await.unwrap());
    let answer = soon(health.check(HealthCheckRequest { service: String::new() })).await.unwrap();
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn warp() {
    let authority = start(programs::warp::serve).await;
    expect_echo(&format!("ws://{authority}/echo")).await;
    assert_eq!(status_of_foreign_origin(&format!("ws://{authority}/echo")).await, 403);
}
