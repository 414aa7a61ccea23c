//! Values as protobuf.

use std::error::Error as StdError;

use bowline::{CloseCode, ErrorKind, Limits, Role, pair};

use crate::support::allocations::ALLOCATIONS;
use crate::support::frames::Frame;
use crate::support::{open, settle, warm_up};

#[derive(Clone, PartialEq, prost::Message)]
struct Point {
    #[prost(int32, tag = "1")]
    x: i32,
    #[prost(bytes = "vec", tag = "2")]
    name: Vec<u8>,
}

#[tokio::test]
async fn values_arrive_as_they_were() {
    let (mut client, mut server) = pair();
    for size in [0, 100, 1000, 200_000] {
        let point = Point { x: -5, name: vec![7; size] };
        client.send_protobuf(&point).await.unwrap();
        assert_eq!(server.recv_protobuf::<Point>().await.unwrap(), Some(point.clone()));
        server.sender().send_protobuf(&point).await.unwrap();
        assert_eq!(client.recv_protobuf::<Point>().await.unwrap(), Some(point));
    }
    let closing = tokio::spawn(async move { client.close(CloseCode::NORMAL, "").await });
    assert_eq!(server.recv_protobuf::<Point>().await.unwrap(), None);
    closing.await.unwrap().unwrap();
    let error = server.send_protobuf(&Point::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_value_is_one_binary_message() {
    let (socket, wire) = open(Role::Server, Limits::default());
    socket.send_protobuf(&Point { x: 1, name: Vec::new() }).await.unwrap();
    assert_eq!(wire.next_frame(Role::Server).await, Frame::binary([0x08, 0x01]));
}

#[tokio::test]
async fn what_is_no_protobuf_is_an_error_and_the_connection_goes_on() {
    let (client, mut server) = pair();
    client.send("text").await.unwrap();
    client.send(&[0xFF]).await.unwrap();
    client.send_protobuf(&Point::default()).await.unwrap();
    let error = server.recv_protobuf::<Point>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(error.to_string(), "the message is text, but a binary message with protobuf was asked for");
    let error = server.recv_protobuf::<Point>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(error.to_string(), "the message is not the protobuf that was asked for");
    assert!(error.source().is_some());
    assert_eq!(server.recv_protobuf::<Point>().await.unwrap(), Some(Point::default()));
}

/// Only the thread's buffer takes memory.
#[tokio::test]
async fn sending_a_value_allocates_nothing() {
    warm_up().await;
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        let point = Point { x: 1, name: vec![7; 5000] };
        // The memory of the test's stream isn't counted.
        let large = vec![7; 2_000_000];
        socket.send(&large).await.unwrap();
        wire.set_room(0);
        settle().await;
        socket.send("what waits").await.unwrap();
        socket.send_protobuf(&point).await.unwrap();
        let before = ALLOCATIONS.get();
        socket.send_protobuf(&point).await.unwrap();
        assert_eq!(ALLOCATIONS.get() - before, 0, "{role:?}");
    }
}
