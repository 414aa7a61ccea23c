//! Each client of the page, with a server of bowline.

use std::sync::Arc;

use bowline::Server;
use openssl::ssl::{SslConnector, SslMethod};
use openssl::x509::X509;
use tokio::net::UnixListener;
use tokio_native_tls::native_tls;

use crate::programs;
use crate::proxy::{http_target, socks_target, start_proxy};
use crate::support::{certificates, echo, expect_echo_on, soon, start_bowline};

fn port_of(authority: &str) -> u16 {
    authority.rsplit_once(':').unwrap().1.parse().unwrap()
}

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
async fn hyper_util_s_client() {
    let authority = start_bowline(Server::new()).await;
    let (proxy, target) = start_proxy(http_target).await;
    let proxy = format!("http://{proxy}").parse().unwrap();
    let socket = programs::hyper_util_s_client::connect(proxy, &format!("ws://{authority}/")).await.unwrap();
    expect_echo_on(socket).await;
    assert_eq!(soon(target).await.unwrap(), authority);
}

#[tokio::test]
async fn socks() {
    let authority = start_bowline(Server::new()).await;
    let (proxy, target) = start_proxy(socks_target).await;
    let port = port_of(&authority);
    let socket = programs::socks::connect(proxy, "localhost", port).await.unwrap();
    assert!(socket.peer_addr().is_some(), "the TCP stream is not found");
    expect_echo_on(socket).await;
    assert_eq!(soon(target).await.unwrap(), format!("localhost:{port}"));
}

#[tokio::test]
async fn openssl() {
    let certificates = certificates();
    let authority = start_bowline(Server::new().tls(Arc::new(certificates.server))).await;
    let mut tls = SslConnector::builder(SslMethod::tls_client()).unwrap();
    tls.cert_store_mut().add_cert(X509::from_pem(certificates.pem.as_bytes()).unwrap()).unwrap();
    let socket = programs::openssl::connect(&tls.build(), "localhost", port_of(&authority)).await.unwrap();
    expect_echo_on(socket).await;
}

#[tokio::test]
async fn native_tls() {
    let certificates = certificates();
    let authority = start_bowline(Server::new().tls(Arc::new(certificates.server))).await;
    let port = port_of(&authority);
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
