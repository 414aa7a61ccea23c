//! Messages of JSON and of Protocol Buffers.

mod support;

use std::collections::HashMap;
use std::error::Error as _;

use bowline::{ErrorKind, Limits, Message, Role, Sender, pair};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Serialize, Serializer};

use support::allocations::{ALLOCATIONS, Counting};
use support::frames::Frame;
use support::open;

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Move {
    x: i32,
    name: String,
}

fn a_move() -> Move {
    Move { x: -1, name: "north \"é\"".to_owned() }
}

#[derive(Clone, prost::Message, PartialEq)]
struct Point {
    #[prost(sint32, tag = "1")]
    x: i32,
    #[prost(string, tag = "2")]
    name: String,
}

#[tokio::test]
async fn json_goes_there_and_back() {
    let (mut client, mut server) = pair();
    client.send_json(&a_move()).await.unwrap();
    client.sender().send_json("text").await.unwrap();
    let numbers: HashMap<String, u8> = [("a".to_owned(), 1)].into();
    client.send_json(&numbers).await.unwrap();
    let frame = server.recv().await.unwrap().unwrap();
    assert_eq!(frame, Message::from(r#"{"x":-1,"name":"north \"é\""}"#));
    assert_eq!(server.recv_json::<String>().await.unwrap().unwrap(), "text");
    assert_eq!(server.recv_json::<HashMap<String, u8>>().await.unwrap(), Some(numbers));
    // A binary message may be JSON as well.
    server.send(frame.as_bytes()).await.unwrap();
    assert_eq!(client.recv_json::<Move>().await.unwrap(), Some(a_move()));
    let ended = tokio::spawn(async move { client.recv_json::<Move>().await });
    server.close(bowline::CloseCode::NORMAL, "").await.unwrap();
    assert_eq!(ended.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_message_that_is_not_the_json_is_an_error_and_no_more() {
    let (mut client, server) = pair();
    server.send("{\"x\": 1,\n\"name\": oops}").await.unwrap();
    server.send(b"\"\xFF\"").await.unwrap();
    server.send("[1, 2, 3]").await.unwrap();
    server.send("{\"x\": 1, \"name\": \"right\"}").await.unwrap();
    let error = client.recv_json::<Move>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("line 2 column 9"), "it says where: {cause}");
    for _ in 0..2 {
        assert_eq!(client.recv_json::<Move>().await.unwrap_err().kind(), ErrorKind::Decode);
    }
    assert_eq!(client.recv_json::<Move>().await.unwrap(), Some(Move { x: 1, name: "right".to_owned() }));
}

/// Fails in the middle, and sends something itself.
struct Meddling<'a>(&'a Sender);

impl Serialize for Meddling<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.try_send("from within").unwrap();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("begun", &true)?;
        Err(S::Error::custom("no further"))
    }
}

#[tokio::test]
async fn nothing_is_sent_of_a_value_that_fails_midway() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        let error = socket.send_json(&Meddling(&socket.sender())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.source().unwrap().to_string(), "no further");
        socket.send_json(&[1, 2]).await.unwrap();
        assert_eq!(wire.take_frames(role), [Frame::text("from within"), Frame::text("[1,2]")]);
    }
}

#[tokio::test]
async fn protobuf_goes_there_and_back() {
    let (mut client, mut server) = pair();
    let point = Point { x: -3, name: "here".to_owned() };
    client.send_protobuf(&point).await.unwrap();
    client.sender().send_protobuf(&Point::default()).await.unwrap();
    assert_eq!(server.recv_protobuf().await.unwrap(), Some(point.clone()));
    // A message with nothing in it is empty, and one all the same.
    assert_eq!(server.recv_protobuf().await.unwrap(), Some(Point::default()));
    server.send("text").await.unwrap();
    server.send(&[0xFF; 3]).await.unwrap();
    server.send_protobuf(&point).await.unwrap();
    let text = client.recv_protobuf::<Point>().await.unwrap_err();
    assert_eq!(text.kind(), ErrorKind::Decode);
    assert!(text.to_string().contains("text"), "{text}");
    let malformed = client.recv_protobuf::<Point>().await.unwrap_err();
    assert!(malformed.kind() == ErrorKind::Decode && malformed.source().is_some());
    assert_eq!(client.recv_protobuf().await.unwrap(), Some(point));
}

#[tokio::test]
async fn encoding_allocates_nothing_once_the_thread_has_its_memory() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        let (value, point) = (a_move(), Point { x: 1, name: "x".repeat(1000) });
        for _ in 0..2 {
            socket.send_json(&value).await.unwrap();
            socket.send_protobuf(&point).await.unwrap();
        }
        // So that the test's own end has the memory.
        wire.take_written();
        wire.reserve(100_000);
        let before = ALLOCATIONS.get();
        for _ in 0..10 {
            socket.send_json(&value).await.unwrap();
            socket.send_protobuf(&point).await.unwrap();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{role:?}");
        assert_eq!(wire.take_frames(role).len(), 20);
    }
}

#[tokio::test]
async fn a_send_that_waits_keeps_its_message() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(1));
    wire.set_room(0);
    socket.send("in front").await.unwrap();
    let sender = socket.sender();
    let waiting = tokio::spawn(async move { sender.send_json(&a_move()).await });
    support::settle().await;
    // Another value is serialised meanwhile, in the same thread.
    drop(socket.send_json("dropped"));
    wire.set_room(usize::MAX);
    waiting.await.unwrap().unwrap();
    let sent = wire.take_frames(Role::Server);
    assert_eq!(sent, [Frame::text("in front"), Frame::text(r#"{"x":-1,"name":"north \"é\""}"#)]);
}
