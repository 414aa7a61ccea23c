//! `Stream` and `Sink`.

mod support;

use bowline::{CloseCode, ErrorKind, Limits, Message, Role, WebSocket, pair};
use futures_util::{SinkExt, StreamExt, TryStreamExt};

use support::frames::{Frame, encode_all};
use support::{open, poll_times, settle};

#[tokio::test]
async fn a_websocket_is_a_stream_that_ends() {
    let (mut client, server) = pair();
    server.send("one").await.unwrap();
    server.send("two").await.unwrap();
    let closing = tokio::spawn(async move { server.close(CloseCode::NORMAL, "").await });
    let messages: Vec<Message> = (&mut client).try_collect().await.unwrap();
    assert_eq!(messages, [Message::from("one"), Message::from("two")]);
    assert!(client.next().await.is_none());
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_error_is_the_last_item() {
    let (mut client, server) = pair();
    drop(server);
    let error = client.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(client.next().await.is_none());
    // `recv` goes on to say why.
    assert_eq!(client.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
}

/// Our own methods are not hidden by those of `SinkExt`, which take `&mut self`.
#[tokio::test]
async fn send_and_close_stay_what_they_are() {
    let (client, mut server) = pair();
    let mut client: WebSocket = client;
    let client = &mut client;
    client.send("borrowed").await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some("borrowed".into()));
    let receiving = tokio::spawn(async move { server.recv().await });
    assert!(client.close(CloseCode(4000), "a reason").await.unwrap().is_some());
    assert_eq!(receiving.await.unwrap().unwrap_err().close_frame().unwrap().reason(), "a reason");
}

#[tokio::test]
async fn split_and_forward_echo_a_batch_with_two_writes() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        let frames: Vec<_> = (0..50_u8).map(|number| Frame::binary([number; 10])).collect();
        wire.feed(&encode_all(support::peer_of(role), &frames));
        let (sink, stream) = socket.into_futures().split();
        let echo = tokio::spawn(stream.forward(sink));
        settle().await;
        assert_eq!(wire.take_frames(role), frames);
        let (reads, writes) = wire.calls();
        // One for all but the last, which the crate's own half of the split holds back until it is flushed.
        assert!(writes == 2 && reads <= 3, "{reads} reads, {writes} writes");
        wire.feed_frame(support::peer_of(role), &Frame::close(1000, ""));
        wire.end();
        echo.await.unwrap().unwrap();
        assert_eq!(wire.take_frames(role), [Frame::close(1000, "")]);
    }
}

#[tokio::test]
async fn a_sink_waits_for_room_and_keeps_what_it_took() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(10));
    wire.set_room(0);
    let mut sink = socket.sender().into_sink();
    sink.feed("fills the buffer".into()).await.unwrap();
    sink.feed("one more".into()).await.unwrap();
    assert!(poll_times(5, sink.feed("too much".into())).await.is_none());
    // The dropped future had not handed its message over.
    wire.set_room(usize::MAX);
    sink.send("the last".into()).await.unwrap();
    let sent = wire.take_frames(Role::Server);
    assert_eq!(sent, ["fills the buffer", "one more", "the last"].map(Frame::text));
}

#[tokio::test]
async fn closing_a_sink_closes_the_connection() {
    let (client, mut server) = pair();
    let mut futures = client.into_futures();
    futures.feed("in front".into()).await.unwrap();
    let receiving =
        tokio::spawn(async move { (server.recv().await, server.recv().await, server.close_frame()) });
    futures.close().await.unwrap();
    let (first, end, close) = receiving.await.unwrap();
    assert_eq!(first.unwrap(), Some("in front".into()));
    assert_eq!(end.unwrap(), None);
    assert_eq!(close.unwrap().code(), CloseCode::NORMAL);
    assert_eq!(futures.send("late".into()).await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(futures.next().await.is_none());
}
