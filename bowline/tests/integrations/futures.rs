//! The connection as a stream and a sink.

use std::pin::Pin;
use std::time::Duration;

use bowline::{
    CloseCode, ErrorKind, Limits, Message, MessageKind, Role, SenderSink, WebSocketStreamSink, pair,
};
use futures_util::stream::FusedStream;
use futures_util::{FutureExt, Sink, SinkExt, StreamExt, stream};

use crate::support::frames::{Frame, encode_all};
use crate::support::{open, poll_times, settle};

fn is_shared<T: Send + Sync + Unpin + 'static>() {}

#[test]
fn adapters_can_be_shared_between_threads() {
    is_shared::<WebSocketStreamSink>();
    is_shared::<SenderSink>();
}

#[tokio::test]
async fn a_connection_is_a_stream_of_messages() {
    let (client, mut server) = pair();
    client.send("one").await.unwrap();
    client.send(&[2]).await.unwrap();
    assert_eq!(server.next().await.unwrap().unwrap(), "one".into());
    let closing = tokio::spawn(async move { client.close(CloseCode::NORMAL, "").await });
    assert_eq!(server.next().await.unwrap().unwrap(), Message::from(vec![2]));
    assert!(!server.is_terminated());
    assert!(server.next().await.is_none());
    assert!(server.is_terminated() && server.next().await.is_none());
    assert_eq!(server.recv().await.unwrap(), None);
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_ends_behind_its_first_error() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed_frame(Role::Client, &Frame::close(4000, ""));
    let error = socket.next().await.unwrap().unwrap_err();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode(4000));
    assert!(socket.next().await.is_none() && socket.is_terminated());
    // `recv` returns the same result again.
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Closed);
}

/// The methods of the extension traits don't shadow the inherent ones.
#[tokio::test]
async fn its_own_methods_win() {
    let (client, mut server) = pair();
    let mut client = client;
    let borrowed = &mut client;
    borrowed.send("text").await.unwrap();
    borrowed.flush().await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some("text".into()));
    assert!(borrowed.next().now_or_never().is_none());
}

/// An application that has polled the stream once and then does other work doesn't keep pings from being
/// answered.
#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_though_the_stream_is_left_alone() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    assert!(socket.next().now_or_never().is_none());
    for _ in 0..3 {
        wire.feed_frame(Role::Client, &Frame::ping("?"));
        let answer = tokio::time::timeout(Duration::from_secs(1), wire.next_frame(Role::Server));
        assert_eq!(answer.await.unwrap(), Frame::pong("?"));
    }
}

#[tokio::test]
async fn split_and_forward_echo_until_the_peer_closes() {
    let (client, server) = pair();
    let (sink, stream) = server.into_stream_sink().split();
    let echo = tokio::spawn(stream.forward(sink));
    let mut socket = client.into_stream_sink();
    for text in ["one", "two"] {
        socket.send(text.into()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), text.into());
    }
    socket.close().await.unwrap();
    echo.await.unwrap().unwrap();
    assert!(socket.next().await.is_none());
    let error = socket.send("late".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(socket.into_inner().close_frame().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pipelined_forward_writes_once_a_batch() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let (sink, stream) = socket.into_stream_sink().split();
    tokio::spawn(stream.forward(sink));
    settle().await;
    for round in 1..=3 {
        wire.feed(&encode_all(Role::Client, &vec![Frame::text("hello"); 16]));
        settle().await;
        assert_eq!(wire.take_frames(Role::Server).len(), 16);
        assert_eq!(wire.calls(), (round, round), "reads and writes");
    }
}

#[tokio::test]
async fn a_sink_is_ready_when_there_is_room_and_flushed_when_all_is_written() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(10));
    let mut sink = socket.sender().into_sink();
    wire.set_room(0);
    sink.feed("longer than the mark".into()).await.unwrap();
    assert!(poll_times(3, sink.feed("more".into())).await.is_none());
    assert!(poll_times(3, sink.flush()).await.is_none());
    wire.set_room(usize::MAX);
    sink.flush().await.unwrap();
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("longer than the mark")]);
    sink.send("again".into()).await.unwrap();
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("again")]);
}

/// A flush covers every message that was accepted before it returns `Ready`, also one that was accepted while
/// it waited.
#[tokio::test]
async fn a_flush_under_way_covers_what_is_accepted_meanwhile() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut sink = socket.into_stream_sink();
    wire.set_room(3);
    sink.feed("first".into()).await.unwrap();
    std::future::poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx)).await.unwrap();
    assert!(poll_times(1, sink.flush()).await.is_none());
    Pin::new(&mut sink).start_send("second".into()).unwrap();
    wire.set_room(5);
    settle().await;
    assert!(poll_times(1, sink.flush()).await.is_none(), "the second message is not written yet");
    wire.set_room(usize::MAX);
    sink.flush().await.unwrap();
    assert_eq!(wire.take_frames(Role::Server).len(), 2);
}

/// Accepted messages are written without a flush.
#[tokio::test]
async fn a_sink_needs_no_flush() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut sink = socket.sender().into_sink();
    sink.feed("fed".into()).await.unwrap();
    assert_eq!(wire.next_frame(Role::Server).await, Frame::text("fed"));
}

/// For example after a timeout. A place in the queue of senders would hold up all others.
#[tokio::test]
async fn a_sink_that_is_polled_no_more_holds_up_nobody() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(10));
    wire.set_room(0);
    socket.send("longer than the mark").await.unwrap();
    let mut sink = socket.sender().into_sink();
    assert!(poll_times(3, sink.send("given up".into())).await.is_none());
    let sender = socket.sender();
    let sending = tokio::spawn(async move { sender.send("another").await });
    wire.set_room(usize::MAX);
    sending.await.unwrap().unwrap();
    assert_eq!(wire.next_frame(Role::Server).await, Frame::text("longer than the mark"));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::text("another"));
}

#[tokio::test]
async fn a_sink_waits_for_the_end_of_a_writer() {
    for begun_before in [true, false] {
        let (client, mut server) = pair();
        let mut sink = client.sender().into_sink();
        let writer = if begun_before {
            let writer = client.writer(MessageKind::Text).await.unwrap();
            assert!(poll_times(3, sink.feed("from the sink".into())).await.is_none());
            writer
        } else {
            // Between the two halves of `feed`.
            std::future::poll_fn(|cx| sink.poll_ready_unpin(cx)).await.unwrap();
            let writer = client.writer(MessageKind::Text).await.unwrap();
            sink.start_send_unpin("from the sink".into()).unwrap();
            assert!(poll_times(3, sink.flush()).await.is_none());
            writer
        };
        let sending = tokio::spawn(async move {
            if begun_before {
                sink.feed("from the sink".into()).await.unwrap();
            }
            sink.flush().await.unwrap();
        });
        settle().await;
        // No message was accepted, so that no write could wake the sink.
        drop(writer);
        sending.await.unwrap();
        assert_eq!(server.recv().await.unwrap(), Some("from the sink".into()));
    }
}

#[tokio::test]
async fn start_send_without_poll_ready_is_an_error() {
    let (client, _server) = pair();
    let mut sink = client.sender().into_sink();
    let error = Pin::new(&mut sink).start_send("text".into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    sink.send("text".into()).await.unwrap();
}

#[tokio::test]
async fn forward_closes_the_connection_at_the_end() {
    let (client, mut server) = pair();
    let messages = stream::iter(["one", "two"]).map(|text| Ok(text.into()));
    let forwarding = tokio::spawn(messages.forward(client.sender().into_sink()));
    assert_eq!(server.recv().await.unwrap(), Some("one".into()));
    assert_eq!(server.recv().await.unwrap(), Some("two".into()));
    assert_eq!(server.recv().await.unwrap(), None);
    assert_eq!(server.close_frame().unwrap().code(), CloseCode::NORMAL);
    forwarding.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_sink_says_why_it_can_not_send() {
    let (client, server) = pair();
    let mut sink = client.sender().into_sink();
    drop(client);
    let error = sink.send("text".into()).await.unwrap_err();
    assert_eq!(error.to_string(), "the connection is closed: its WebSocket was dropped");
    drop(server);
}

/// A sink takes part in the budget of its task.
#[tokio::test]
async fn a_sink_that_is_always_ready_lets_others_run() {
    let (socket, _wire) = open(Role::Server, Limits::default());
    let mut sink = socket.into_stream_sink();
    let ready = |sink: &mut WebSocketStreamSink| {
        std::future::poll_fn(|cx| Sink::poll_ready(Pin::new(&mut *sink), cx)).now_or_never()
    };
    let mut count = 0;
    while ready(&mut sink).is_some() {
        sink.start_send_unpin("text".into()).unwrap();
        count += 1;
        assert!(count < 1000, "others never run");
    }
}
