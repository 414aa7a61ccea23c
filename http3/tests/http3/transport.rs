//! The configuration of QUIC, and of its sockets.

use std::sync::Arc;
use std::time::Duration;

use bowline::rustls::{ClientConfig, ServerConfig};
use bowline::{Acceptor, Message, Server, WebSocket};
use bowline_http3::{Http3Connection, Http3Server};
use tokio::net::UdpSocket;
use tokio::sync::{oneshot, watch};
use tokio::task::yield_now;

use crate::links::{Link, Speed};
use crate::raw::{ACCEPTED, RawClient, request, soon};
use crate::support::{Running, Tls, echo, serve, serve_echo};

/// QUIC ends a connection on which nothing has arrived for 30 s.
#[tokio::test]
async fn a_silent_websocket_is_kept_alive() {
    let running = serve_echo(Server::new().acceptor(Acceptor::new().keepalive(None))).await;
    let connector = running.tls.connector().keepalive(None);
    let connection = Http3Connection::open(&connector, running.url()).await.unwrap();
    let (mut socket, _) = connection.connect("/").await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(200)).await;
    tokio::time::resume();
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some(Message::from("hello")));
}

/// Early data may be replayed (RFC 8446 8), whatever the application's configuration says.
#[tokio::test]
async fn rfc_8446_8_a_server_accepts_no_early_data() {
    let Tls { server, client } = Tls::new();
    let mut server = ServerConfig::clone(&server);
    server.max_early_data_size = u32::MAX;
    let mut client = ClientConfig::clone(&client);
    client.enable_early_data = true;
    let tls = Tls { server: Arc::new(server), client: Arc::new(client) };
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let server = Http3Server::new(Server::new().tls(Arc::clone(&tls.server)));
    let running = Running { address, tls, task: tokio::spawn(server.serve(socket, echo)) };
    let client = RawClient::connect(&running).await;
    let (_send, mut receive) = client.request(&request()).await;
    soon(receive.read_exact(&mut [0; ACCEPTED.len()])).await.unwrap();
    // A ticket has arrived, but allows none.
    let (_endpoint, connecting) = RawClient::start(&running.tls, running.address);
    assert!(connecting.into_0rtt().is_err());
}

#[tokio::test]
async fn empty_datagrams_are_ignored() {
    let running = serve_echo(Server::new()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..100 {
        socket.send_to(&[], running.address).await.unwrap();
    }
    let (mut socket, _) = running.connect().await.connect("/").await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some(Message::from("hello")));
}

#[tokio::test]
async fn a_goaway_overtakes_the_messages_of_many_websockets() {
    const SOCKETS: u32 = 60;
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async { stopped.await.unwrap_or(()) };
    let (send, may_send) = watch::channel(false);
    let server = Server::new().shutdown(signal, Duration::from_secs(100));
    let mut running = serve(server, move |socket: WebSocket| {
        let mut may_send = may_send.clone();
        async move {
            may_send.wait_for(|may| *may).await?;
            socket.send(vec![0; 10_000]).await?;
            std::future::pending().await
        }
    })
    .await;
    let link = Link::to(running.address).await;
    running.address = link.address;
    let client = RawClient::connect(&running).await;
    let mut control = soon(client.quic.accept_uni()).await.unwrap();
    soon(control.read_chunk(1000, true)).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..SOCKETS {
        let (send, mut receive) = client.request(&request()).await;
        soon(receive.read_exact(&mut [0; ACCEPTED.len()])).await.unwrap();
        streams.push((send, receive));
    }
    // A few packets leave, and the rest waits.
    link.becomes(Speed::Never);
    send.send(true).unwrap();
    for _ in 0..1000 {
        yield_now().await;
    }
    stop.send(()).unwrap();
    for _ in 0..1000 {
        yield_now().await;
    }
    let before = client.quic.stats().frame_rx.stream;
    link.becomes(Speed::OneEach(Duration::from_millis(2)));
    let goaway = soon(control.read_chunk(1000, true)).await.unwrap().unwrap();
    assert_eq!(goaway.bytes[0], 0x07);
    let frames = client.quic.stats().frame_rx.stream - before;
    assert!(frames < 20, "{frames} frames before");
}
