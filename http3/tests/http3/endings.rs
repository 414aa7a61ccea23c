//! The ends of WebSockets, connections and servers.

use std::time::Duration;

use bowline::{Acceptor, CloseCode, ErrorKind, Limits, Message, Server, WebSocket};
use bowline_http3::Http3Server;
use http::request::Parts;
use quinn::TransportConfig;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};

use crate::raw::{ACCEPTED, RawClient, frame, literal, request, section, soon};
use crate::support::{HandlerResult, Tls, echo, serve, serve_echo};

/// Serves with a handler that reports how each of its WebSockets has ended.
async fn serve_and_report() -> (crate::support::Running, mpsc::UnboundedReceiver<Result<(), bowline::Error>>)
{
    let (reports, received) = mpsc::unbounded_channel();
    let running = serve(Server::new(), move |mut socket: WebSocket| {
        let reports = reports.clone();
        async move {
            let ended = loop {
                match socket.recv().await {
                    Ok(Some(message)) => drop(socket.send(message).await),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            let _ = reports.send(ended);
            Ok(())
        }
    })
    .await;
    (running, received)
}

#[tokio::test]
async fn a_close_frame_is_clean_on_both_sides() {
    let (running, mut reports) = serve_and_report().await;
    let (socket, _) = running.connect().await.connect("/").await.unwrap();
    socket.close(CloseCode::NORMAL, "").await.unwrap();
    assert!(reports.recv().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_dropped_websocket_writes_what_was_accepted_and_ends_without_a_close_frame() {
    let (running, mut reports) = serve_and_report().await;
    // The connection goes with its last WebSocket.
    let (socket, _) = running.connect().await.connect("/").await.unwrap();
    socket.send(vec![7; 200_000]).await.unwrap();
    drop(socket);
    let error = reports.recv().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(error.to_string().contains("without a Close frame"), "{error}");
}

#[tokio::test]
async fn all_that_was_accepted_arrives_although_the_connection_is_dropped() {
    let (totals, mut received) = mpsc::unbounded_channel();
    let running = serve(Server::new(), move |mut socket: WebSocket| {
        let totals = totals.clone();
        async move {
            let mut total = 0;
            while let Ok(Some(message)) = socket.recv().await {
                total += message.len();
            }
            let _ = totals.send(total);
            Ok(())
        }
    })
    .await;
    let (socket, _) = running.connect().await.connect("/").await.unwrap();
    for _ in 0..10 {
        socket.send(vec![7; 100_000]).await.unwrap();
    }
    drop(socket);
    assert_eq!(received.recv().await, Some(1_000_000));
}

#[tokio::test]
async fn a_connection_ends_when_its_handles_and_websockets_are_gone() {
    let running = serve_echo(Server::new()).await;
    let connection = running.connect().await;
    let other = connection.clone();
    let (mut socket, _) = connection.connect("/").await.unwrap();
    drop((connection, other));
    socket.send("still there").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("still there")));
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_the_connection() {
    let running = serve_echo(Server::new()).await;
    let connection = running.connect().await;
    let (mut socket, _) = connection.connect("/").await.unwrap();
    running.task.abort();
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
    let error = connection.closed().await;
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(error.to_string().contains("H3_NO_ERROR"), "{error}");
    assert!(connection.is_closed());
    assert_eq!(connection.connect("/").await.unwrap_err().kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn a_server_that_is_dropped_leaves_its_port() {
    let running = serve_echo(Server::new()).await;
    // With a connection, and with none.
    let connection = running.connect().await;
    running.task.abort();
    connection.closed().await;
    drop(connection);
    let bound = tokio::time::timeout(Duration::from_secs(20), async {
        while UdpSocket::bind(running.address).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    assert!(bound.await.is_ok(), "the port is still in use");
}

#[tokio::test]
async fn a_shutdown_closes_the_websockets_and_tells_clients_to_go_away() {
    let tls = Tls::new();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async { stopped.await.unwrap_or(()) };
    let server = Server::new().tls(tls.server.clone()).shutdown(signal, Duration::from_secs(10));
    let serving = tokio::spawn(Http3Server::new(server).serve(udp, echo));
    let url = format!("wss://{address}");
    let connection = bowline_http3::Http3Connection::open(&tls.connector(), url).await.unwrap();
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let (mut socket, _) = connection.connect("/").await.unwrap();
        socket.send("hello").await.unwrap();
        socket.recv().await.unwrap();
        sockets.push(socket);
    }
    stop.send(()).unwrap();
    for mut socket in sockets {
        assert!(socket.recv().await.unwrap().is_none());
        assert_eq!(socket.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
    }
    let summary = serving.await.unwrap().unwrap();
    assert_eq!((summary.closed(), summary.ended()), (3, 0));
    assert!(connection.connect("/").await.is_err());
}

/// Here, a handler keeps the server from ending for a while.
#[tokio::test]
async fn a_client_that_comes_during_a_shutdown_is_refused_at_once() {
    let tls = Tls::new();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}", udp.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async { stopped.await.unwrap_or(()) };
    let server = Server::new().tls(tls.server.clone()).shutdown(signal, Duration::from_secs(30));
    let (release, released) = oneshot::channel::<()>();
    let released = std::sync::Arc::new(tokio::sync::Mutex::new(Some(released)));
    let handler = move |mut socket: WebSocket| {
        let released = std::sync::Arc::clone(&released);
        async move {
            while socket.recv().await?.is_some() {}
            if let Some(released) = released.lock().await.take() {
                let _ = released.await;
            }
            HandlerResult::Ok(())
        }
    };
    let serving = tokio::spawn(Http3Server::new(server).serve(udp, handler));
    let connection = bowline_http3::Http3Connection::open(&tls.connector(), &url).await.unwrap();
    let (mut socket, _) = connection.connect("/").await.unwrap();
    stop.send(()).unwrap();
    assert!(socket.recv().await.unwrap().is_none());
    let began = tokio::time::Instant::now();
    let refused = bowline_http3::Http3Connection::open(&tls.connector(), &url).await.unwrap_err();
    assert_ne!(refused.kind(), ErrorKind::Timeout, "{refused}");
    assert!(began.elapsed() < Duration::from_secs(5), "{refused}");
    release.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

/// The task of the connection notices the end before the WebSocket does, whose application reads nothing yet.
#[tokio::test]
async fn a_websocket_that_is_read_late_still_tells_who_has_ended_the_connection() {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let (read, may_read) = watch::channel(false);
    let running = serve(Server::new(), move |head: Parts, mut socket: WebSocket| {
        let (reports, mut may_read) = (reports.clone(), may_read.clone());
        async move {
            if !head.headers.contains_key("unread") {
                return echo(socket).await;
            }
            may_read.wait_for(|may| *may).await?;
            let error = loop {
                if let Err(error) = socket.recv().await {
                    break error;
                }
            };
            reports.send(error)?;
            Ok(())
        }
    })
    .await;
    let client = RawClient::connect(&running).await;
    let (mut send, mut receive) = client.request(&frame(0x01, &section(&literal("unread", "1")))).await;
    soon(receive.read_exact(&mut [0; ACCEPTED.len()])).await.unwrap();
    // Two texts `a`: the library itself takes the first.
    send.write_all(&frame(0x00, &[0x81, 0x81, 0, 0, 0, 0, b'a'].repeat(2))).await.unwrap();
    // The server has processed what has arrived before it serves another client.
    let (mut other, _) = running.connect().await.connect("/").await.unwrap();
    for text in ["the texts have arrived", "the end has arrived"] {
        other.send(text).await.unwrap();
        assert_eq!(other.recv().await.unwrap(), Some(Message::from(text)));
        client.quic.close(0x101_u32.into(), b"");
    }
    read.send(true).unwrap();
    let error = soon(reported.recv()).await.unwrap();
    assert!(error.to_string().contains("the peer closed the HTTP/3 connection"), "{error}");
}

#[tokio::test]
async fn a_shutdown_ends_quic_handshakes_in_progress() {
    let tls = Tls::new();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async { stopped.await.unwrap_or(()) };
    let long = Duration::from_secs(1000);
    let acceptor = Acceptor::new().limits(Limits::default().handshake_timeout(long));
    let server = Server::new().tls(tls.server.clone()).acceptor(acceptor).shutdown(signal, long);
    let serving = tokio::spawn(Http3Server::new(server).serve(udp, echo));

    // The client's first packet passes, and no other.
    let (outer, inner) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (connector, url) = (tls.connector(), format!("wss://{}", outer.local_addr().unwrap()));
    let client =
        tokio::spawn(async move { bowline_http3::Http3Connection::open(&connector, url).await.map(drop) });
    let mut packet = [0; 2000];
    let count = outer.recv(&mut packet).await.unwrap();
    inner.send_to(&packet[..count], address).await.unwrap();
    inner.recv(&mut packet).await.unwrap();

    stop.send(()).unwrap();
    // QUIC gives up such a client after 30 s.
    let outcome = tokio::time::timeout(Duration::from_secs(20), serving).await;
    let summary = outcome.expect("the shutdown waits").unwrap().unwrap();
    assert_eq!((summary.closed(), summary.ended()), (0, 0));
    client.abort();
}

/// The window of its streams has room for SETTINGS, and not for the GOAWAY.
#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_client_without_room_for_a_goaway() {
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async { stopped.await.unwrap_or(()) };
    let limits = Limits::default().close_timeout(Duration::from_secs(1));
    let acceptor = Acceptor::new().limits(limits);
    let running =
        serve_echo(Server::new().acceptor(acceptor).shutdown(signal, Duration::from_secs(1000))).await;
    let mut transport = TransportConfig::default();
    // SETTINGS have 10 bytes with the type of the stream, and a GOAWAY 3.
    transport.stream_receive_window(11_u32.into());
    let client = RawClient::connect_with(&running, transport).await;
    // It stays unread.
    let _control = soon(client.quic.accept_uni()).await.unwrap();
    stop.send(()).unwrap();
    soon(running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_without_use_is_ended() {
    let limits = Limits::default().handshake_timeout(Duration::from_secs(2));
    let running = serve_echo(Server::new().acceptor(Acceptor::new().limits(limits))).await;
    let (mut socket, _) = running.connect().await.connect("/").await.unwrap();
    let unused = running.connect().await;
    assert_eq!(unused.closed().await.kind(), ErrorKind::Disconnected);
    // One with a WebSocket goes on.
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from("hello")));
}

/// The client may leave its direction open.
#[tokio::test]
async fn a_websocket_that_has_closed_stops_its_stream_without_an_error() {
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    let (mut send, mut receive) = client.request(&request()).await;
    // A Close frame with 1000, masked with zeros.
    send.write_all(&frame(0x00, &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])).await.unwrap();
    let answer = soon(receive.read_to_end(1000)).await.unwrap();
    assert!(answer.ends_with(&[0x88, 0x02, 0x03, 0xe8]), "{answer:x?}");
    // H3_NO_ERROR.
    assert_eq!(soon(send.stopped()).await, Ok(Some(0x100_u32.into())));
}
