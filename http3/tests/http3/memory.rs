//! The memory that connections and streams keep, by a counting allocator.

use std::time::Duration;

use bowline::{Acceptor, Limits, Server, WebSocket};
use http::request::Parts;
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;

use crate::raw::{ACCEPTED, RawClient, frame, literal, request, section, soon};
use crate::support::allocations::held;
use crate::support::{HandlerResult, echo, serve, serve_echo};

/// Opens a WebSocket.
async fn open(client: &RawClient, request: &[u8]) -> (SendStream, RecvStream) {
    let (send, mut receive) = client.request(request).await;
    soon(receive.read_exact(&mut [0; ACCEPTED.len()])).await.unwrap();
    (send, receive)
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
    let limits = Limits::default().handshake_timeout(Duration::from_secs(100));
    let running = serve_echo(server.acceptor(Acceptor::new().limits(limits))).await;
    let client = RawClient::connect(&running).await;
    let request = request();
    let mut kept = 0;
    // Queues and tables grow to their sizes during the first requests.
    for count in [500, REQUESTS] {
        let before = held();
        for _ in 0..count {
            let (mut send, mut receive) = soon(client.request(&request)).await;
            soon(checked.recv()).await.unwrap();
            send.reset(0x10c_u32.into()).unwrap();
            assert_eq!(soon(receive.received_reset()).await, Ok(Some(0x10c_u32.into())));
        }
        kept = held() - before;
    }
    assert!(kept < 8 * REQUESTS, "{} bytes a request", kept / REQUESTS);
}
