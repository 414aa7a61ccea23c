//! Values as JSON.

use std::error::Error as StdError;
use std::io::Read;

use bowline::{Adoption, CloseCode, ErrorKind, Limits, MessageKind, Role, Sender, pair};
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use crate::support::allocations::ALLOCATIONS;
use crate::support::frames::Frame;
use crate::support::{self, open, poll_times, settle};

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Move {
    from: String,
    number: u32,
}

fn a_move() -> Move {
    Move { from: "é2".into(), number: 7 }
}

/// Fails in the middle.
struct Broken;

impl Serialize for Broken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element("the first half")?;
        Err(S::Error::custom("it is broken"))
    }
}

/// A value that sends on its own connection while it is serialised.
struct Intruding(Sender);

impl Serialize for Intruding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.try_send("first").map_err(S::Error::custom)?;
        serializer.serialize_str("second")
    }
}

#[tokio::test]
async fn values_arrive_as_they_were() {
    let (mut client, mut server) = pair();
    client.send_json(&a_move()).await.unwrap();
    server.sender().send_json("only text").await.unwrap();
    assert_eq!(server.recv_json::<Move>().await.unwrap(), Some(a_move()));
    assert_eq!(client.recv_json::<String>().await.unwrap().unwrap(), "only text");
    client.send(br#"{"from":"binary","number":1}"#).await.unwrap();
    let received: Move = server.recv_json().await.unwrap().unwrap();
    assert_eq!(received, Move { from: "binary".into(), number: 1 });
    let closing = tokio::spawn(async move { client.close(CloseCode::NORMAL, "").await });
    assert_eq!(server.recv_json::<Move>().await.unwrap(), None);
    assert_eq!(server.recv_json::<Move>().await.unwrap(), None);
    closing.await.unwrap().unwrap();
    let error = server.send_json(&a_move()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

/// Sent while no bytes wait, which moves the buffer; and after waiting bytes, which copies.
#[tokio::test]
async fn a_value_is_one_text_message_whatever_waits_before_it() {
    for role in [Role::Client, Role::Server] {
        for size in [0, 50, 200, 70_000] {
            for waiting in [false, true] {
                let (socket, wire) = open(role, Limits::default().write_buffer(200_000));
                let text = "x".repeat(size);
                if waiting {
                    wire.set_room(0);
                    socket.send("waiting").await.unwrap();
                }
                socket.send_json(&text).await.unwrap();
                socket.send_json(&()).await.unwrap();
                wire.set_room(usize::MAX);
                socket.flush().await.unwrap();
                let mut frames = wire.take_frames(role).into_iter().skip(usize::from(waiting));
                let first = frames.next().unwrap();
                assert_eq!(first.payload, format!("\"{text}\"").as_bytes());
                assert_eq!(first, Frame::text(first.payload.clone()));
                assert_eq!(frames.next().unwrap(), Frame::text("null"));
                assert!(frames.next().is_none());
            }
        }
    }
}

#[tokio::test]
async fn a_value_that_fails_midway_sends_nothing() {
    let (client, mut server) = pair();
    let error = client.send_json(&Broken).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "the value can't be serialized as JSON: nothing was sent: it is broken");
    assert_eq!(error.source().unwrap().to_string(), "it is broken");
    client.send_json(&1).await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some("1".into()));
}

#[tokio::test]
async fn bad_json_says_where_and_the_connection_goes_on() {
    let (client, mut server) = pair();
    client.send("{\n  \"from\": 1}").await.unwrap();
    client.send("").await.unwrap();
    client.send(&[0xFF]).await.unwrap();
    client.send_json(&a_move()).await.unwrap();
    let error = server.recv_json::<Move>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(error.to_string(), "the message is not the JSON that was asked for, at line 2, column 11");
    assert!(error.source().unwrap().to_string().starts_with("invalid type: integer"), "{error:?}");
    for _ in 0..2 {
        assert_eq!(server.recv_json::<Move>().await.unwrap_err().kind(), ErrorKind::InvalidData);
    }
    assert_eq!(server.recv_json::<Move>().await.unwrap(), Some(a_move()));
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    #[expect(dead_code, reason = "it is never there")]
    a: u32,
}

/// A peer's text inside an error can't forge lines of a log.
#[tokio::test]
async fn what_is_wrong_with_json_is_escaped() {
    let (client, mut server) = pair();
    for text in [r#"{"\u001b[2J\n2026 INFO all is well": 1}"#, "\n{\"it's \\u2028\": 1}"] {
        client.send(text).await.unwrap();
        let error = server.recv_json::<Strict>().await.unwrap_err();
        let source = error.source().unwrap().downcast_ref::<serde_json::Error>().unwrap();
        let all = format!("{error} {error:?} {source} {source:?}");
        assert!(!all.contains(['\u{1b}', '\n', '\u{2028}']), "{all:?}");
        let line = if text.starts_with('\n') { 2 } else { 1 };
        assert_eq!(source.line(), line);
        assert!(source.to_string().contains(["\\u{1b}[2J\\n2026", "it's \\u{2028}"][line - 1]), "{source}");
    }
}

/// A hostile peer's nesting does not overflow the stack.
#[tokio::test]
async fn deeply_nested_json_is_an_error() {
    let (client, mut server) = pair();
    client.send("[".repeat(500_000)).await.unwrap();
    let error = server.recv_json::<serde::de::IgnoredAny>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_serialiser_may_send_on_the_same_connection() {
    let (client, mut server) = pair();
    client.send_json(&Intruding(client.sender())).await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some("first".into()));
    assert_eq!(server.recv().await.unwrap(), Some("\"second\"".into()));
}

#[tokio::test]
async fn it_waits_for_room_and_a_dropped_one_sends_nothing() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(10));
    wire.set_room(0);
    socket.send_json("0123456789").await.unwrap();
    assert!(poll_times(3, socket.send_json("dropped")).await.is_none());
    let sender = socket.sender();
    let waiting = tokio::spawn(async move { sender.send_json("waited").await });
    wire.set_room(usize::MAX);
    waiting.await.unwrap().unwrap();
    socket.flush().await.unwrap();
    let sent = wire.take_frames(Role::Server);
    assert_eq!(sent, [Frame::text("\"0123456789\""), Frame::text("\"waited\"")]);
}

#[tokio::test]
async fn it_waits_for_the_end_of_a_writer() {
    let (client, mut server) = pair();
    let writer = client.writer(MessageKind::Text).await.unwrap();
    assert!(poll_times(3, client.send_json(&1)).await.is_none());
    writer.finish().await.unwrap();
    client.send_json(&2).await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some("".into()));
    assert_eq!(server.recv().await.unwrap(), Some("2".into()));
}

#[tokio::test]
async fn sending_a_value_allocates_nothing() {
    for role in [Role::Client, Role::Server] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let socket = match role {
            Role::Server => bowline::Acceptor::new().adopt(stream, Adoption::new()).unwrap(),
            Role::Client => bowline::Connector::new().adopt(stream, Adoption::new()).unwrap(),
        };
        let reading = std::thread::spawn(move || {
            let mut scratch = [0; 4096];
            while peer.read(&mut scratch).unwrap() > 0 {}
        });
        settle().await;
        let value = vec![a_move(), a_move()];
        let mut before = 0;
        for number in 0..200 {
            if number == 100 {
                before = ALLOCATIONS.get();
            }
            socket.send_json(&value).await.unwrap();
            socket.flush().await.unwrap();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{role:?}");
        drop(socket);
        tokio::task::spawn_blocking(|| reading.join().unwrap()).await.unwrap();
    }
}

#[cfg(feature = "deflate")]
#[tokio::test]
async fn values_are_compressed_where_that_was_agreed_on() {
    use bowline::{Acceptor, Compression, DeflateParameters};

    let (stream, wire) = support::wire::wire();
    let acceptor = Acceptor::new().compression(Compression::ContextTakeover);
    let socket = acceptor.adopt(stream, Adoption::new().compression(DeflateParameters::default())).unwrap();
    socket.send_json(&"x".repeat(1000)).await.unwrap();
    let frame = wire.next_frame(Role::Server).await;
    assert!(frame.compressed && frame.payload.len() < 100, "{frame:?}");
}
