//! The times of the steps of a handshake.

use std::time::Duration;

use bowline::{Connector, HandshakeTimes, Proxy, Server};
use http::Response;
use tokio::io::{AsyncWriteExt, duplex};
use tokio::time::sleep;

use crate::support::http::{acceptance, echo, http_proxy, listen, read_head, soon, start};

fn times_of(response: &Response<()>) -> HandshakeTimes {
    *response.extensions().get().expect("each response of a handshake has times")
}

async fn times(connector: &Connector, url: String) -> HandshakeTimes {
    let (_socket, response) = soon(connector.connect(url)).await.unwrap();
    times_of(&response)
}

#[tokio::test(start_paused = true)]
async fn a_time_is_that_of_its_step() {
    let (client, mut server) = duplex(64 * 1024);
    let serving = async {
        let request = read_head(&mut server).await;
        sleep(Duration::from_secs(3)).await;
        server.write_all(acceptance(&request).text().as_bytes()).await.unwrap();
        server
    };
    let connecting = Connector::new().connect_over("ws://example.com/", client).into_future();
    let (opened, _server) = tokio::join!(connecting, serving);
    let times = times_of(&opened.unwrap().1);
    assert_eq!(times.upgraded(), Duration::from_secs(3));
    assert_eq!((times.resolved(), times.connected(), times.secured()), (None, None, None));
}

#[tokio::test]
async fn a_name_is_resolved_before_tcp_connects() {
    let address = start(Server::new(), echo).await;
    let connector = Connector::new().proxy(Proxy::none());
    let by_name = times(&connector, format!("ws://localhost:{}/", address.port())).await;
    let connected = by_name.connected().unwrap();
    assert!(by_name.resolved().unwrap() <= connected && connected <= by_name.upgraded(), "{by_name:?}");
    assert!(!connected.is_zero());
    assert_eq!(by_name.secured(), None);
    let by_address = times(&connector, format!("ws://{address}/")).await;
    assert_eq!(by_address.resolved(), None);
    assert!(by_address.connected().unwrap() <= by_address.upgraded(), "{by_address:?}");
}

#[tokio::test]
async fn the_name_of_a_proxy_is_resolved_too() {
    let address = start(Server::new(), echo).await;
    let (proxy, _heads) = http_proxy(address).await;
    for (host, is_resolved) in [("localhost", true), ("127.0.0.1", false)] {
        let proxy = Proxy::new(format!("http://{host}:{}", proxy.port())).unwrap();
        let times =
            times(&Connector::new().proxy(proxy), format!("ws://example.com:{}/", address.port())).await;
        assert_eq!(times.resolved().is_some(), is_resolved, "{times:?}");
        assert!(times.resolved() <= times.connected(), "{times:?}");
        assert!(times.connected().unwrap() <= times.upgraded(), "{times:?}");
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_comes_between_tcp_and_the_upgrade() {
    let (server, client) = crate::support::tls::configs();
    let address = start(Server::new().tls(server), echo).await;
    let connector = Connector::new().proxy(Proxy::none()).tls(client);
    let times = times(&connector, format!("wss://{address}/")).await;
    let (connected, secured) = (times.connected().unwrap(), times.secured().unwrap());
    assert!(connected < secured && secured < times.upgraded(), "{times:?}");
}

#[tokio::test]
async fn redirects_count() {
    const PAUSE: Duration = Duration::from_millis(30);
    let target = start(Server::new(), echo).await;
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        read_head(&mut first).await;
        sleep(PAUSE).await;
        first
            .write_all(b"HTTP/1.1 307 Moved\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        let mut target = tokio::net::TcpStream::connect(target).await.unwrap();
        // The end of the test is an error for one of them.
        let _ = tokio::io::copy_bidirectional(&mut second, &mut target).await;
    });
    let connector = Connector::new().proxy(Proxy::none()).redirects(1);
    let times = times(&connector, format!("ws://{address}/")).await;
    assert!(times.connected().unwrap() >= PAUSE && times.upgraded() >= PAUSE, "{times:?}");
}
