//! Each client of the page, with a server of bowline.

use std::sync::Arc;

use bowline::Server;
use tokio::net::UnixListener;
use tokio_native_tls::native_tls;

use crate::programs;
use crate::support::{certificates, echo, expect_echo_on, start_bowline};

#[tokio::test]
async fn reqwest() {
    let certificates = certificates();
    let plain = start_bowline(Server::new()).await;
    let secured = start_bowline(Server::new().tls(Arc::new(certificates.server))).await;
    let client = reqwest::Client::builder()
        .http1_only()
        .no_proxy()
        .use_preconfigured_tls(Arc::unwrap_or_clone(certificates.client))
        .build()
        .unwrap();
    for url in [format!("ws://{plain}/"), format!("wss://{}/", secured.replace("127.0.0.1", "localhost"))] {
        expect_echo_on(programs::reqwest::connect(&client, &url).await.unwrap()).await;
    }
}

#[tokio::test]
async fn native_tls() {
    let certificates = certificates();
    let authority = start_bowline(Server::new().tls(Arc::new(certificates.server))).await;
    let port = authority.rsplit_once(':').unwrap().1.parse().unwrap();
    let root = native_tls::Certificate::from_pem(certificates.pem.as_bytes()).unwrap();
    let tls = native_tls::TlsConnector::builder().add_root_certificate(root).build().unwrap();
    let socket = programs::native_tls::connect(&tls.into(), "localhost", port).await.unwrap();
    expect_echo_on(socket).await;
}

#[tokio::test]
async fn unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    tokio::spawn(bowline::serve(UnixListener::bind(&path).unwrap(), echo));
    expect_echo_on(programs::unix_sockets::connect(path.to_str().unwrap()).await.unwrap()).await;
}
