//! The memory that connections and streams keep, by a counting allocator.

use std::time::Duration;

use bowline::{Acceptor, CloseCode, Limits, Rejection, Server, WebSocket};
use http::request::Parts;
use http::{Response, StatusCode};
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::raw::{ACCEPTED, RawClient, frame, literal, request, section, soon};
use crate::support::allocations::held;
use crate::support::{HandlerResult, echo, serve, serve_echo};

/// Opens a WebSocket.
async fn open(client: &RawClient, request: &[u8]) -> (SendStream, RecvStream) {
    let (send, mut receive) = client.request(request).await;
    soon(receive.read_exact(&mut [0; ACCEPTED.len()])).await.unwrap();
    (send, receive)
}

/// Waits until no more than `limit` bytes are held beyond `before`: the last streams may be ending.
async fn settle(before: isize, limit: isize, what: &str) {
    let settled = timeout(Duration::from_secs(30), async {
        while held() - before > limit {
            tokio::task::yield_now().await;
        }
    });
    assert!(settled.await.is_ok(), "{what}: {} bytes stay", held() - before);
}

/// Packets that arrive together are one piece of memory, of which the last byte might keep all.
#[tokio::test]
async fn an_unread_byte_keeps_its_packet_alone() {
    const UNREAD: isize = 60;
    let running = serve(Server::new(), |head: Parts, socket: WebSocket| async move {
        if head.headers.contains_key("unread") {
            std::future::pending::<HandlerResult>().await?;
        }
        echo(socket).await
    })
    .await;
    let client = RawClient::connect(&running).await;
    let (mut bulk, mut echoed) = open(&client, &request()).await;
    let unread_request = frame(0x01, &section(&literal("unread", "1")));
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(open(&client, &unread_request).await);
    }
    // A text `a`, masked with zeros, and an empty message that is discarded.
    let text = frame(0x00, &[0x81, 0x81, 0, 0, 0, 0, b'a']);
    // Unknown frames of 12,000 bytes, and the text.
    let many = [frame(0x21, &[0; 12_000]), text.clone()].concat();
    let mut kept = 0;
    // The library itself takes the first messages, and leaves the others to QUIC.
    for _ in 0..3 {
        let before = held();
        for (send, _receive) in &mut unread {
            send.write_all(&text).await.unwrap();
            bulk.write_all(&many).await.unwrap();
            let mut echo = [0; 5];
            soon(echoed.read_exact(&mut echo)).await.unwrap();
            assert_eq!(echo, [0x00, 0x03, 0x81, 0x01, b'a']);
        }
        kept = (held() - before) / UNREAD;
    }
    assert!(kept < 4096, "{kept} bytes for each byte");
}

/// Their reset is the end of the work for them, of which nothing may stay for the life of the connection.
#[tokio::test]
async fn requests_that_were_reset_leave_nothing_behind() {
    const REQUESTS: isize = 2000;
    let (checks, mut checked) = mpsc::unbounded_channel();
    let server = Server::new().on_request(move |head: Parts| {
        let _ = checks.send(());
        async move {
            std::future::pending::<()>().await;
            Ok(head)
        }
    });
    // Requests alone are no use of a connection, which ends after this time.
    let limits = Limits::default().handshake_timeout(Duration::from_secs(10_000));
    let running = serve_echo(server.acceptor(Acceptor::new().limits(limits))).await;
    let client = RawClient::connect(&running).await;
    let request = request();
    let mut before = 0;
    // Queues and tables grow to their sizes during the first requests.
    for count in [500, REQUESTS] {
        before = held();
        for _ in 0..count {
            let (mut send, mut receive) = soon(client.request(&request)).await;
            soon(checked.recv()).await.unwrap();
            send.reset(0x10c_u32.into()).unwrap();
            assert_eq!(soon(receive.received_reset()).await, Ok(Some(0x10c_u32.into())));
        }
    }
    settle(before, 8 * REQUESTS, "requests").await;
}

/// Whatever a client does with its streams, a connection that lives for years has to forget it.
#[tokio::test]
async fn streams_that_have_ended_leave_nothing_behind() {
    const STREAMS: isize = 500;
    // Requests alone are no use of a connection, which ends after this time.
    let limits = Limits::default().handshake_timeout(Duration::from_secs(10_000));
    let server = Server::new()
        .acceptor(Acceptor::new().limits(limits))
        .fallback(|_: Parts| async { Response::new("page") });
    let running = serve_echo(server).await;
    // :method GET, :scheme https, :path /, :authority a.
    let get = frame(0x01, &[0x00, 0x00, 0xd1, 0xd7, 0xc1, 0x50, 0x01, b'a']);
    let close = frame(0x00, &[0x88, 0x80, 0, 0, 0, 0]);
    for (name, bytes) in [
        ("a WebSocket that is closed", [request(), close].concat()),
        ("a WebSocket without a Close frame", request()),
        ("a page", get),
        ("a head that is too large", vec![0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a malformed request", frame(0x01, &[0x00, 0x00])),
        ("no request", Vec::new()),
    ] {
        let client = RawClient::connect(&running).await;
        let mut before = 0;
        // Queues and tables grow to their sizes during the first streams.
        for count in [200, STREAMS] {
            before = held();
            for _ in 0..count {
                let (mut send, mut receive) = soon(client.request(&bytes)).await;
                let _ = send.finish();
                let _ = soon(receive.read_to_end(10_000)).await;
                // The server may want no more.
                let _ = soon(send.stopped()).await;
            }
        }
        settle(before, 8 * STREAMS, name).await;
        assert!(client.quic.close_reason().is_none(), "{name}: {:?}", client.quic.close_reason());
    }
}

#[tokio::test]
async fn unidirectional_streams_that_have_ended_leave_nothing_behind() {
    const STREAMS: isize = 500;
    let running = serve_echo(Server::new()).await;
    let client = RawClient::connect(&running).await;
    // A connection ends without use.
    let _used = open(&client, &request()).await;
    for bytes in [&[][..], &[0x40], &[0x21, 1, 2, 3]] {
        let mut before = 0;
        for count in [200, STREAMS] {
            before = held();
            for number in 0..count {
                let mut stream = soon(client.quic.open_uni()).await.unwrap();
                stream.write_all(bytes).await.unwrap();
                if number % 2 == 0 {
                    let _ = stream.reset(0x10c_u32.into());
                } else {
                    let _ = stream.finish();
                    let _ = soon(stream.stopped()).await;
                }
            }
        }
        settle(before, 8 * STREAMS, "streams").await;
        assert!(client.quic.close_reason().is_none(), "{bytes:x?}: {:?}", client.quic.close_reason());
    }
}

#[tokio::test]
async fn websockets_of_a_client_that_have_ended_leave_nothing_behind() {
    const SOCKETS: isize = 300;
    let server = Server::new().on_request(|head: Parts| async move {
        if head.uri.path() == "/refused" { Err(Rejection::from(StatusCode::FORBIDDEN)) } else { Ok(head) }
    });
    let running = serve_echo(server).await;
    let connection = running.connect().await;
    // A connection ends without use.
    let _used = connection.connect("/").await.unwrap();
    for path in ["/refused", "/dropped", "/closed"] {
        let mut before = 0;
        for count in [100, SOCKETS] {
            before = held();
            for _ in 0..count {
                match soon(connection.connect(path)).await {
                    Ok((socket, _)) if path == "/closed" => {
                        soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
                    }
                    ended => assert_eq!(ended.is_err(), path == "/refused"),
                }
            }
        }
        settle(before, 8 * SOCKETS, path).await;
    }
}
