//! `send`, `try_send`, `flush`, the cork and concurrent senders.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bowline::{
    Acceptor, Adoption, CloseCode, ErrorKind, Limits, Message, MessageKind, Prepared, Role, TrySendError,
    Utf8Bytes, WebSocket, pair,
};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::Barrier;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::support;
use crate::support::frames::{Frame, all_frames, encode_all};
use crate::support::wire::Wire;
use crate::support::{open, peer_of, poll_once, poll_times, settle};

#[tokio::test]
async fn send_takes_text_and_bytes_in_all_their_forms() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        socket.send("a").await.unwrap();
        socket.send(&"b".to_owned()).await.unwrap();
        socket.send("c".to_owned()).await.unwrap();
        socket.send(Utf8Bytes::from_static("d")).await.unwrap();
        socket.send(b"e").await.unwrap();
        socket.send([b'f'].as_slice()).await.unwrap();
        socket.send(&vec![b'g']).await.unwrap();
        socket.send(vec![b'h']).await.unwrap();
        socket.send(Bytes::from_static(b"i")).await.unwrap();
        socket.send(Message::from("j")).await.unwrap();
        socket.send(&Prepared::new("k")).await.unwrap();
        socket.send(&Prepared::new(vec![b'l'])).await.unwrap();
        let frames = [
            Frame::text("a"),
            Frame::text("b"),
            Frame::text("c"),
            Frame::text("d"),
            Frame::binary("e"),
            Frame::binary("f"),
            Frame::binary("g"),
            Frame::binary("h"),
            Frame::binary("i"),
            Frame::text("j"),
            Frame::text("k"),
            Frame::binary("l"),
        ];
        assert_eq!(all_frames(role, wire.take_written()), frames);
    }
}

/// Owned and prepared payloads of all sizes are written whole, whether they are copied or queued by
/// reference, and however few bytes the transport accepts.
#[tokio::test]
async fn large_payloads_go_out_whole() {
    for role in [Role::Client, Role::Server] {
        for chunk in [1000, 70_001, usize::MAX] {
            let (socket, wire) = open(role, Limits::default());
            wire.set_chunk(chunk);
            wire.set_hesitating();
            let mut expected = Vec::new();
            for size in [0, 1, 125, 126, 16_383, 16_384, 65_535, 65_536, 300_000] {
                let payload: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
                expected.extend([Frame::binary(&payload), Frame::binary(&payload), Frame::binary(&payload)]);
                socket.send(&payload).await.unwrap();
                socket.send(&Prepared::new(payload.clone())).await.unwrap();
                socket.send(payload).await.unwrap();
            }
            socket.flush().await.unwrap();
            assert_eq!(all_frames(role, wire.take_written()), expected);
        }
    }
}

#[tokio::test]
async fn send_waits_for_the_high_water_mark_and_accepts_whole_messages() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(100));
    wire.set_room(0);
    // Below the mark, a message is accepted whatever its size.
    socket.send(&[1; 99]).await.unwrap();
    assert!(poll_times(5, socket.send(&[2; 1000])).await.is_none(), "101 bytes wait, header included");
    assert!(matches!(socket.try_send("full"), Err(TrySendError::Full("full"))));
    wire.set_room(2);
    // Now 99 do.
    socket.send(&[3; 1000]).await.unwrap();
    assert!(poll_times(5, socket.send("more")).await.is_none());
    wire.set_room(usize::MAX);
    socket.flush().await.unwrap();
    let frames = [Frame::binary([1; 99]), Frame::binary([3; 1000])];
    assert_eq!(all_frames(Role::Server, wire.take_written()), frames);
}

#[tokio::test]
async fn accepted_bytes_go_out_without_any_further_call() {
    let (socket, wire) = open(Role::Server, Limits::default());
    wire.set_room(3);
    socket.send("hello").await.unwrap();
    assert_eq!(wire.written_len(), 3);
    wire.set_room(usize::MAX);
    wire.until(|wire| wire.written_len() == 7).await;
    drop(socket);
}

#[tokio::test]
async fn senders_wait_in_order_of_arrival() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(1));
    wire.set_room(0);
    socket.send("0").await.unwrap();
    let tasks: Vec<_> = (1..=20)
        .map(|number: u8| {
            let sender = socket.sender();
            tokio::spawn(async move { sender.send(number.to_string()).await })
        })
        .collect();
    settle().await;
    // Some senders are dropped, which must neither block nor reorder later ones.
    for (number, task) in (1..).zip(&tasks) {
        if number % 3 == 0 {
            task.abort();
        }
    }
    settle().await;
    wire.set_room(usize::MAX);
    for (number, task) in (1..).zip(tasks) {
        assert_eq!(task.await.is_ok(), number % 3 != 0);
    }
    let expected: Vec<_> = (0..=20)
        .filter(|number| *number == 0 || number % 3 != 0)
        .map(|n| Frame::text(n.to_string()))
        .collect();
    assert_eq!(all_frames(Role::Server, wire.take_written()), expected);
}

#[tokio::test]
async fn a_sender_whose_turn_has_come_is_not_overtaken() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(1));
    wire.set_room(0);
    socket.send("0").await.unwrap();
    let mut first = pin!(socket.send("1"));
    assert!(poll_once(first.as_mut()).await.is_none());
    wire.set_room(usize::MAX);
    wire.until(|wire| wire.written_len() == 3).await;
    // There is room, but it is the first one's.
    assert!(matches!(socket.try_send("2"), Err(TrySendError::Full("2"))));
    let mut second = pin!(socket.send("2"));
    assert!(poll_once(second.as_mut()).await.is_none());
    first.await.unwrap();
    second.await.unwrap();
    let frames = [Frame::text("0"), Frame::text("1"), Frame::text("2")];
    assert_eq!(all_frames(Role::Server, wire.take_written()), frames);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_gives_up_when_its_turn_has_come_passes_it_on() {
    let start = tokio::time::Instant::now();
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(1));
    wire.set_room(0);
    socket.send("0").await.unwrap();
    let mut first = Box::pin(socket.send("1"));
    assert!(poll_once(first.as_mut()).await.is_none());
    let sender = socket.sender();
    let second = tokio::spawn(async move { sender.send("2").await });
    settle().await;
    wire.set_room(usize::MAX);
    wire.until(|wire| wire.written_len() == 3).await;
    drop(first);
    second.await.unwrap().unwrap();
    assert_eq!(all_frames(Role::Server, wire.take_written()), [Frame::text("0"), Frame::text("2")]);
    assert!(start.elapsed().is_zero(), "no timer had to help");
}

#[tokio::test]
async fn rfc6455_5_3_masking_keys_are_fresh_for_every_frame() {
    let (socket, wire) = open(Role::Client, Limits::default());
    let mut keys = HashSet::new();
    let mut bits = 0;
    for _ in 0..2000 {
        socket.send(&[0; 8]).await.unwrap();
        // The key, and zeros masked with it.
        let frame = wire.take_written();
        let key = <[u8; 4]>::try_from(&frame[2..6]).unwrap();
        assert_eq!(frame[6..], [key, key].concat());
        bits += u32::from_be_bytes(key).count_ones();
        keys.insert(key);
    }
    // One collision has a probability of 1 in 2,000; three, of less than 1 in a billion.
    assert!(keys.len() > 1997, "{} different keys", keys.len());
    // 64,000 fair coins: five standard deviations are 632.
    assert!((31_200..32_800).contains(&bits), "{bits} of 64,000 bits are set");
}

#[tokio::test]
async fn try_send_tells_full_from_closed_and_does_not_overtake() {
    let (socket, wire) = open(Role::Client, Limits::default().write_buffer(1));
    wire.set_room(0);
    socket.try_send("first").unwrap();
    let message = Message::from("second");
    let Err(TrySendError::Full(message)) = socket.try_send(message) else { panic!("it is full") };
    let sender = socket.sender();
    let waiting = tokio::spawn(async move { sender.send(message).await });
    settle().await;
    wire.set_room(usize::MAX);
    waiting.await.unwrap().unwrap();
    let _ = poll_times(3, socket.close(CloseCode::NORMAL, "")).await;
    assert!(matches!(socket.try_send(b"closed"), Err(TrySendError::Closed(b"closed"))));
    let frames = [Frame::text("first"), Frame::text("second"), Frame::close(1000, "")];
    assert_eq!(all_frames(Role::Client, wire.take_written()), frames);
}

#[tokio::test]
async fn an_open_writer_makes_others_wait_but_not_pings_and_close() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut writer = socket.writer(MessageKind::Text).await.unwrap();
    writer.write_all(b"one ").await.unwrap();
    writer.flush().await.unwrap();
    assert!(matches!(socket.try_send("full"), Err(TrySendError::Full(_))));
    let sender = socket.sender();
    let waiting = tokio::spawn(async move { sender.send("later").await });
    settle().await;
    wire.feed_frame(Role::Client, &Frame::ping("ping"));
    wire.until(|wire| wire.written_len() == 12).await;
    writer.write_all(b"message").await.unwrap();
    writer.finish().await.unwrap();
    waiting.await.unwrap().unwrap();
    let frames = [
        Frame::text("one ").unfinished(),
        Frame::pong("ping"),
        Frame::continuation("message"),
        Frame::text("later"),
    ];
    assert_eq!(all_frames(Role::Server, wire.take_written()), frames);

    let mut writer = socket.writer(MessageKind::Binary).await.unwrap();
    writer.write_all(b"unfinished").await.unwrap();
    writer.flush().await.unwrap();
    assert!(poll_times(3, socket.close(CloseCode::NORMAL, "")).await.is_none());
    assert!(writer.write_all(b"more").await.is_err());
    drop(writer);
    let frames = [Frame::binary("unfinished").unfinished(), Frame::close(1000, "")];
    assert_eq!(all_frames(Role::Server, wire.take_written()), frames);
}

#[tokio::test]
async fn a_long_message_leaves_time_to_others() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut writer = socket.writer(MessageKind::Binary).await.unwrap();
    let write = async {
        for _ in 0..1000 {
            writer.write_all(&[7; 16 * 1024]).await.unwrap();
        }
    };
    assert!(
        poll_times(1, write).await.is_none(),
        "the transport takes all, but that is no reason to go on for ever"
    );
    assert!(wire.written_len() > 1_000_000);
}

#[tokio::test]
async fn a_writer_takes_only_utf8_for_text_and_stays_usable() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let mut writer = socket.writer(MessageKind::Text).await.unwrap();
    writer.write_all("é".as_bytes().split_at(1).0).await.unwrap();
    let error = writer.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    writer.write_all("é".as_bytes().split_at(1).1).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(all_frames(Role::Server, wire.take_written()), [Frame::text("é")]);

    let mut writer = socket.writer(MessageKind::Text).await.unwrap();
    writer.write_all("é".as_bytes().split_at(1).0).await.unwrap();
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // No part of the message was sent, so the connection continues.
    socket.send("next").await.unwrap();
    assert_eq!(all_frames(Role::Server, wire.take_written()), [Frame::text("next")]);
}

/// Replies to a batch of messages that arrived together leave together.
#[tokio::test(start_paused = true)]
async fn a_pipelined_echo_costs_one_read_and_one_write_a_batch() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        let echo = tokio::spawn(async move {
            while let Some(message) = socket.recv().await.unwrap() {
                socket.send(message).await.unwrap();
            }
        });
        for batch in 1..=10 {
            settle().await;
            let frames: Vec<_> = (0..16).map(|number: u8| Frame::binary([number; 10])).collect();
            wire.feed(&encode_all(peer_of(role), &frames));
            wire.until(|wire| wire.calls().1 >= batch).await;
            assert_eq!(all_frames(role, wire.take_written()), frames);
            assert_eq!(wire.calls(), (batch, batch));
        }
        echo.abort();
    }
}

/// A transport that accepts everything receives large writes. Any other transport makes senders wait at the
/// high-water mark.
#[tokio::test(start_paused = true)]
async fn a_batch_gathers_to_four_times_the_high_water_mark() {
    let (mut socket, wire) = open(Role::Server, Limits::default().write_buffer(1000));
    let frames: Vec<_> = (0..40).map(|number: u8| Frame::binary([number; 246])).collect();
    wire.feed(&encode_all(Role::Client, &frames));
    let mut echoed = 0;
    let mut echo = async || {
        let message = socket.recv().await.unwrap().unwrap();
        socket.send(message).await.unwrap();
        echoed += 1;
        echoed
    };
    for _ in 0..31 {
        let written = 4000 * (echo().await / 16);
        assert_eq!((wire.written_len(), wire.calls().1), (written, written / 4000));
    }
    wire.set_room(2999);
    assert_eq!(echo().await, 32);
    assert_eq!(wire.written_len(), 6999);
    assert!(matches!(socket.try_send("1001 bytes wait"), Err(TrySendError::Full(_))));
    wire.set_room(2);
    socket.send("999 bytes wait").await.unwrap();
    wire.set_room(usize::MAX);
    socket.flush().await.unwrap();
    let replies = all_frames(Role::Server, wire.take_written());
    assert_eq!(replies[..32], frames[..32]);
    assert_eq!(replies[32..], [Frame::text("999 bytes wait")]);
}

#[tokio::test]
async fn a_corked_message_goes_out_though_the_application_never_reads_again() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2"), Frame::text("3")]));
    assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
    socket.send("reply").await.unwrap();
    assert_eq!(wire.written_len(), 0, "two more messages are here");
    // The task yields without a further call.
    assert_eq!(wire.next_frame(Role::Server).await, Frame::text("reply"));
    // A sender elsewhere also writes at once, while the reading task is between two messages.
    assert_eq!(socket.recv().await.unwrap(), Some("2".into()));
    let sender = socket.sender();
    tokio::spawn(async move { sender.send("elsewhere").await }).await.unwrap().unwrap();
    assert_eq!(wire.next_frame(Role::Server).await, Frame::text("elsewhere"));
    drop(socket);
}

/// Returns a connection within a batch of two messages, the first of which was received.
async fn within_a_batch() -> (bowline::WebSocket, Wire) {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2")]));
    assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
    (socket, wire)
}

/// Most replies of a batch are accepted by what an earlier one has found. None may miss what happens between.
#[tokio::test(start_paused = true)]
async fn replies_within_a_batch_see_what_others_do_between_them() {
    const HELD: usize = 20;
    let (socket, wire) = within_a_batch().await;
    let send_some = async |expected: &mut Vec<Frame>| {
        for _ in 0..HELD {
            socket.send("reply").await.unwrap();
            expected.push(Frame::text("reply"));
        }
    };
    let mut expected = Vec::new();
    // Replies leave in order with the messages and pings of others.
    send_some(&mut expected).await;
    socket.sender().send("other").await.unwrap();
    expected.push(Frame::text("other"));
    send_some(&mut expected).await;
    assert!(poll_once(pin!(socket.ping().payload("?"))).await.is_none());
    expected.push(Frame::ping("?"));
    // A writer has the exclusive right to send.
    send_some(&mut expected).await;
    let writer = socket.sender().writer(MessageKind::Text).await.unwrap();
    let mut waiting = Box::pin(socket.send("after the writer"));
    assert!(poll_once(waiting.as_mut()).await.is_none());
    assert!(matches!(socket.try_send("full"), Err(TrySendError::Full("full"))));
    writer.finish().await.unwrap();
    expected.push(Frame::text(""));
    waiting.await.unwrap();
    expected.push(Frame::text("after the writer"));
    // Senders that wait are first.
    send_some(&mut expected).await;
    wire.set_room(0);
    let (first, second) = (socket.sender(), socket.sender());
    while first.try_send("x").is_ok() {
        expected.push(Frame::text("x"));
    }
    let mut early = Box::pin(second.send("early"));
    assert!(poll_once(early.as_mut()).await.is_none());
    let mut late = Box::pin(socket.send("late"));
    assert!(poll_once(late.as_mut()).await.is_none());
    wire.set_room(usize::MAX);
    assert!(poll_once(late.as_mut()).await.is_none());
    early.await.unwrap();
    late.await.unwrap();
    expected.extend([Frame::text("early"), Frame::text("late")]);
    // Nothing is sent after the Close frame.
    send_some(&mut expected).await;
    socket.begin_close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(socket.send("too late").await.unwrap_err().kind(), ErrorKind::Closed);
    settle().await;
    expected.push(Frame::close(1000, ""));
    assert_eq!(wire.take_frames(Role::Server), expected);
}

/// A pong is held back as a reply is, and must not clear the way for the replies after it.
#[tokio::test(start_paused = true)]
async fn a_pong_within_a_batch_lets_no_reply_pass_others() {
    let ping_in_between = [Frame::text("1"), Frame::ping(""), Frame::text("2"), Frame::text("3")];
    // A writer has the exclusive right to send.
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&encode_all(Role::Client, &ping_in_between));
    assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
    let writer = socket.sender().writer(MessageKind::Text).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("2".into()));
    assert!(poll_once(pin!(socket.send("reply"))).await.is_none());
    writer.finish().await.unwrap();
    assert_eq!(wire.take_frames(Role::Server), [Frame::pong(""), Frame::text("")]);
    // A sender that has waited is first.
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.set_room(0);
    let (first, second) = (socket.sender(), socket.sender());
    while first.try_send("x").is_ok() {}
    let mut early = Box::pin(second.send("early"));
    assert!(poll_once(early.as_mut()).await.is_none());
    wire.set_room(usize::MAX);
    settle().await;
    wire.take_written();
    wire.feed(&encode_all(Role::Client, &ping_in_between));
    assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
    assert_eq!(socket.recv().await.unwrap(), Some("2".into()));
    let mut late = Box::pin(socket.send("late"));
    assert!(poll_once(late.as_mut()).await.is_none());
    early.await.unwrap();
    late.await.unwrap();
    settle().await;
    assert_eq!(wire.take_frames(Role::Server), [Frame::pong(""), Frame::text("early"), Frame::text("late")]);
}

#[tokio::test(start_paused = true)]
async fn the_last_reply_to_a_batch_is_written_at_once_with_all_others() {
    let (mut socket, wire) = within_a_batch().await;
    socket.send("reply to 1").await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("2".into()));
    assert_eq!(wire.calls().1, 0);
    socket.send("reply to 2").await.unwrap();
    assert_eq!(wire.calls().1, 1);
    assert_eq!(wire.take_frames(Role::Server).len(), 2);
}

/// Only the `WebSocket` works through the batch.
#[tokio::test(start_paused = true)]
async fn a_sender_never_waits_behind_a_cork() {
    let (socket, wire) = within_a_batch().await;
    socket.send("held").await.unwrap();
    socket.try_send("held").unwrap();
    assert_eq!(wire.calls().1, 0);
    let sender = socket.sender();
    sender.send("now").await.unwrap();
    assert_eq!(wire.calls().1, 1, "with all that was held back");
    assert_eq!(wire.take_frames(Role::Server).len(), 3);
    sender.try_send("now").unwrap();
    assert_eq!(wire.calls().1, 2);
    let mut writer = socket.writer(MessageKind::Binary).await.unwrap();
    writer.write_all(b"a fragment").await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(wire.calls().1, 3);
    writer.finish().await.unwrap();
    assert_eq!(wire.calls().1, 4);
}

/// The thread that works through a batch may be busy. Senders on other threads must not wait for it.
#[test]
fn a_websocket_on_another_thread_never_waits_behind_a_cork() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut socket, wire) = runtime.block_on(async { open(Role::Server, Limits::default()) });
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2")]));
    let (handing_on, handed_on) = std::sync::mpsc::channel();
    let observed = wire.clone();
    let busy = runtime.spawn(async move {
        let message = socket.recv().await.unwrap().unwrap();
        assert!(handing_on.send((socket, message)).is_ok());
        // The task doesn't yield before the reply has arrived.
        let start = std::time::Instant::now();
        while observed.written_len() == 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "the reply is held back");
            std::hint::spin_loop();
        }
    });
    // A third thread spawns this task, which might otherwise wait for the busy thread.
    let (socket, message) = handed_on.recv().unwrap();
    let replying = runtime.spawn(async move {
        socket.send(message).await.unwrap();
        socket
    });
    runtime.block_on(async { (busy.await.unwrap(), replying.await.unwrap()) });
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("1")]);
}

/// Covers a shared `WebSocket`, whose first replies are those of a thread that then computes.
#[test]
fn a_thread_that_shares_a_websocket_never_waits_for_another_that_computes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (socket, wire) = runtime.block_on(within_a_batch());
    let socket = Arc::new(socket);
    let (busy, written) = (Arc::clone(&socket), wire.clone());
    let (having_sent, has_sent) = std::sync::mpsc::channel();
    let computing = runtime.spawn(async move {
        busy.send("busy").await.unwrap();
        busy.send("busy").await.unwrap();
        having_sent.send(()).unwrap();
        let start = std::time::Instant::now();
        while !written.copy_written().ends_with(b"other") {
            assert!(start.elapsed() < Duration::from_secs(20), "the other message is held back");
            std::hint::spin_loop();
        }
    });
    has_sent.recv().unwrap();
    let sending = runtime.spawn(async move { socket.send("other").await.map(|()| socket) });
    runtime.block_on(async { (computing.await.unwrap(), sending.await.unwrap().unwrap()) });
}

/// A driver that has run shows that the application does not work through the batch at full speed.
#[tokio::test(start_paused = true)]
async fn nothing_is_held_back_once_the_driver_has_run() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&encode_all(Role::Client, &[Frame::text("subscribe"), Frame::ping("")]));
    assert_eq!(socket.recv().await.unwrap(), Some("subscribe".into()));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong(""));
    tokio::time::sleep(Duration::from_secs(5)).await;
    for _ in 0..3 {
        socket.send("news").await.unwrap();
        assert_eq!(wire.take_frames(Role::Server), [Frame::text("news")]);
    }
}

#[tokio::test]
async fn more_replies_than_can_be_counted_may_wait_for_a_transport_that_takes_nothing() {
    let (mut socket, wire) = open(Role::Server, Limits::default().write_buffer(1 << 20));
    wire.set_room(0);
    socket.sender().send("stuck").await.unwrap();
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2")]));
    assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
    for _ in 0..70_000 {
        socket.try_send("").unwrap();
    }
    wire.set_room(usize::MAX);
    socket.flush().await.unwrap();
    assert_eq!(wire.take_frames(Role::Server).len(), 70_001);
}

/// The tasks of a current-thread runtime don't run between two calls of `block_on`, or after the last.
#[test]
fn a_reply_is_written_when_block_on_returns() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (mut socket, wire) = runtime.block_on(within_a_batch());
    runtime.block_on(socket.send("reply to 1")).unwrap();
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("reply to 1")]);
    // In one call, the replies to a batch are written together, whether or not the batch is complete.
    wire.feed(&encode_all(Role::Client, &[Frame::text("3"), Frame::text("4"), Frame::text("5")]));
    let before = wire.calls().1;
    runtime.block_on(async {
        for _ in 0..3 {
            let message = socket.recv().await.unwrap().unwrap();
            socket.send(message).await.unwrap();
        }
    });
    assert_eq!(wire.calls().1, before + 1);
    assert_eq!(wire.take_frames(Role::Server).len(), 3);
    runtime.block_on(async {
        let message = socket.recv().await.unwrap().unwrap();
        socket.send(message).await.unwrap();
    });
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("5")]);
}

/// The future yields in between. This wakes the task that waits for the end of the poll, and the future may
/// be ready before the driver runs.
#[test]
fn a_reply_is_written_though_block_on_returns_right_after_a_yield() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut socket, wire) = runtime.block_on(async {
        let opened = open(Role::Server, Limits::default());
        settle().await;
        opened
    });
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2")]));
    runtime.block_on(async {
        settle().await;
        socket.recv().await.unwrap();
        socket.send("reply").await.unwrap();
        tokio::task::yield_now().await;
    });
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("reply")]);
}

/// The stream of a connection, without or with TLS.
#[derive(Clone, Copy)]
enum Stream {
    Plain,
    Tls,
}

/// The blocking end of a stream.
trait Peer: std::io::Read + std::io::Write {}

impl<T: std::io::Read + std::io::Write> Peer for T {}

/// Opens a connection over TCP, and returns its peer, which waits for 20 s at most.
async fn connect_blocking_peer(kind: Stream) -> (WebSocket, Box<dyn Peer>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    match kind {
        Stream::Plain => (Acceptor::new().adopt(stream, Adoption::new()).unwrap(), Box::new(peer)),
        Stream::Tls => {
            let (of_server, of_client) = support::tls::configs();
            let session = rustls::ClientConnection::new(of_client, "localhost".try_into().unwrap()).unwrap();
            let mut peer = rustls::StreamOwned::new(session, peer);
            let shaking_hands = std::thread::spawn(move || {
                peer.conn.complete_io(&mut peer.sock).unwrap();
                peer
            });
            let stream = TlsAcceptor::from(of_server).accept(stream).await.unwrap();
            let socket = Acceptor::new().adopt(stream, Adoption::new()).unwrap();
            (socket, Box::new(shaking_hands.join().unwrap()))
        }
    }
}

/// The arguments with which [`busy_runtime`] is tried.
const BUSY: [(Stream, u32, usize); 4] =
    [(Stream::Plain, 61, 200), (Stream::Plain, 1, 3), (Stream::Tls, 61, 200), (Stream::Tls, 1, 3)];

/// A runtime of one thread with more ready tasks than it runs between two polls of the future that it blocks
/// on, and a connection within a batch.
fn busy_runtime(
    stream: Stream,
    event_interval: u32,
    tasks: usize,
) -> (tokio::runtime::Runtime, WebSocket, Box<dyn Peer>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(event_interval)
        .build()
        .unwrap();
    let (socket, peer) = runtime.block_on(async {
        let (mut socket, mut peer) = connect_blocking_peer(stream).await;
        settle().await;
        peer.write_all(&encode_all(Role::Client, &vec![Frame::text("1"); 4])).unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
        for _ in 0..tasks {
            tokio::spawn(std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                std::task::Poll::<()>::Pending
            }));
        }
        (socket, peer)
    });
    (runtime, socket, peer)
}

fn assert_reply(mut peer: Box<dyn Peer>) {
    let expected = Frame::text("reply").encode(Role::Server);
    let mut reply = vec![0; expected.len()];
    peer.read_exact(&mut reply).expect("the reply is written, though nobody runs the runtime");
    assert_eq!(reply, expected);
}

/// The driver may not be among the tasks that the runtime runs before it polls that future again.
#[test]
fn a_reply_is_written_though_block_on_returns_before_the_driver_has_run() {
    for (stream, event_interval, tasks) in BUSY {
        for yields_first in [true, false] {
            let (runtime, mut socket, peer) = busy_runtime(stream, event_interval, tasks);
            runtime.block_on(async {
                assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
                if yields_first {
                    tokio::task::yield_now().await;
                }
                socket.send("reply").await.unwrap();
                if !yields_first {
                    tokio::task::yield_now().await;
                }
            });
            assert_reply(peer);
        }
    }
}

/// A task replies here, and its end makes that future ready.
#[test]
fn a_tasks_reply_is_written_though_block_on_returns_before_the_driver_has_run() {
    for (stream, event_interval, tasks) in BUSY {
        let (runtime, mut socket, peer) = busy_runtime(stream, event_interval, tasks);
        let socket = runtime.block_on(async {
            let replying = tokio::spawn(async move {
                assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
                socket.send("reply").await.unwrap();
                socket
            });
            replying.await.unwrap()
        });
        assert_reply(peer);
        drop(socket);
    }
}

/// The clock is read with every second one of the first replies, as the application may begin to compute at
/// any of them.
#[tokio::test]
async fn a_reply_does_not_wait_for_more_than_two_computations() {
    for quick in 0..7 {
        let (mut socket, wire) = open(Role::Server, Limits::default());
        wire.feed(&encode_all(Role::Client, &vec![Frame::text("work"); 20]));
        for number in 0..=quick + 2 {
            let message = socket.recv().await.unwrap().unwrap();
            if number > quick {
                compute(Duration::from_millis(5));
            }
            socket.send(message).await.unwrap();
        }
        assert!(wire.written_len() > 0, "{quick} quick replies, and two slow ones");
    }
}

/// Another runtime sends while that of the connection is dropped.
#[test]
fn every_reply_that_is_accepted_while_the_runtime_is_dropped_is_written() {
    let new_runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let other = new_runtime();
    for _ in 0..100 {
        let runtime = new_runtime();
        let (socket, wire) = runtime.block_on(within_a_batch());
        let accepted = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&accepted);
        let sending = other.spawn(async move {
            loop {
                match socket.try_send(b"") {
                    Ok(()) => _ = counting.fetch_add(1, Ordering::Relaxed),
                    Err(TrySendError::Closed(_)) => return,
                    Err(TrySendError::Full(_)) => {}
                }
            }
        });
        while accepted.load(Ordering::Relaxed) < 100 {
            std::hint::spin_loop();
        }
        drop(runtime);
        other.block_on(sending).unwrap();
        assert_eq!(wire.written_len() / 2, accepted.load(Ordering::Relaxed));
    }
}

/// Accepted messages are not lost with the runtime.
#[test]
fn a_dropped_runtime_writes_what_it_can() {
    for role in [Role::Client, Role::Server] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (socket, wire) = runtime.block_on(async {
            let (socket, wire) = open(role, Limits::default());
            wire.set_room(0);
            socket.send("accepted").await.unwrap();
            (socket, wire)
        });
        assert_eq!(wire.written_len(), 0);
        wire.set_room(usize::MAX);
        drop(runtime);
        assert_eq!(wire.take_frames(role), [Frame::text("accepted")]);
        assert!(socket.sender().is_closed());
    }
}

/// A stream of the application may itself panic, so it is not polled while a panic is under way.
#[test]
fn a_panic_within_a_batch_does_not_poll_the_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut socket, wire) = runtime.block_on(async { open(Role::Server, Limits::default()) });
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2")]));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
            socket.send("reply").await.unwrap();
            panic!("in the middle of a batch");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(wire.calls().1, 0);
    runtime.block_on(settle());
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("reply")]);
}

/// Keeps the thread busy, like an application that computes.
fn compute(time: Duration) {
    let start = std::time::Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[tokio::test]
async fn replies_do_not_wait_for_an_application_that_computes() {
    for in_task in [false, true] {
        let (mut socket, wire) = open(Role::Server, Limits::default());
        wire.feed(&encode_all(Role::Client, &vec![Frame::text("work"); 20]));
        let written = wire.clone();
        let working = async move {
            for number in 1..=20_usize {
                let message = socket.recv().await.unwrap().unwrap();
                compute(Duration::from_millis(5));
                socket.send(message).await.unwrap();
                // The first thread can't know how long the second computes.
                let replies = all_frames(Role::Server, written.copy_written()).len();
                assert!(replies >= number - 1, "{replies} replies after {number} messages");
            }
        };
        if in_task {
            tokio::spawn(working).await.unwrap();
        } else {
            working.await;
        }
        settle().await;
        assert_eq!(wire.take_frames(Role::Server).len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_thousand_replies_are_held_back() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&encode_all(Role::Client, &vec![Frame::binary(""); 5000]));
    for number in 1..=5000 {
        socket.recv().await.unwrap().unwrap();
        socket.send(&[]).await.unwrap();
        assert!(number * 2 - wire.written_len() <= 2 * 1024);
    }
    wire.until(|wire| wire.written_len() == 10_000).await;
    // tokio's budget ends a batch every 64 messages.
    assert!(wire.calls().1 <= 5000 / 60, "{} writes", wire.calls().1);
}

/// An application may reply without end to a single message, within one poll.
#[tokio::test(start_paused = true)]
async fn replies_without_end_are_written_a_thousand_at_a_time() {
    const REPLIES: usize = 3 * 1024;
    let (socket, wire) = within_a_batch().await;
    for number in 1..=REPLIES {
        socket.try_send(b"").unwrap();
        assert_eq!(wire.written_len() / 2, number - number % 1024);
    }
    assert_eq!(wire.calls().1, 3);
    let (socket, wire) = within_a_batch().await;
    for number in 1..=REPLIES {
        // Most of these need no look at the connection.
        socket.send(b"").await.unwrap();
        assert_eq!(wire.written_len() / 2, number - number % 1024);
    }
    assert_eq!(wire.calls().1, 3);
}

#[tokio::test]
async fn flush_uncorks() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2")]));
    assert_eq!(socket.recv().await.unwrap(), Some("1".into()));
    socket.send("reply").await.unwrap();
    assert!(poll_times(1, socket.flush()).await.unwrap().is_ok());
    assert_eq!(all_frames(Role::Server, wire.take_written()), [Frame::text("reply")]);
}

async fn many_senders_to_a_slow_reader() {
    const TASKS: usize = 64;
    const MESSAGES: usize = 1000;
    let (socket, mut reader) = pair();
    for task in 0..TASKS {
        let sender = socket.sender();
        tokio::spawn(async move {
            for number in 0..MESSAGES {
                let text = format!("{task} {number} {}", "x".repeat(number % 200));
                sender.send(text).await.unwrap();
            }
        });
    }
    let mut next = [0; TASKS];
    for received in 0..TASKS * MESSAGES {
        if received % 100 == 0 {
            tokio::task::yield_now().await;
        }
        let message = reader.recv().await.unwrap().unwrap();
        let mut words = message.as_text().unwrap().split(' ');
        let mut number = || words.next().unwrap().parse::<usize>().unwrap();
        let (task, number) = (number(), number());
        assert_eq!(number, next[task], "each task's messages stay in their order");
        assert_eq!(words.next().unwrap().len(), number % 200, "each message is whole");
        next[task] += 1;
    }
    assert_eq!(next, [MESSAGES; TASKS]);
    drop(socket);
}

#[tokio::test]
async fn many_senders_to_a_slow_reader_on_one_thread() {
    many_senders_to_a_slow_reader().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_senders_to_a_slow_reader_on_four_threads() {
    many_senders_to_a_slow_reader().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn closes_from_three_tasks_while_a_fourth_receives_all_return() {
    for _ in 0..500 {
        let (mut client, mut server) = pair();
        let peer = tokio::spawn(async move { while let Ok(Some(_)) = server.recv().await {} });
        let barrier = Arc::new(Barrier::new(4));
        let mut closes = Vec::new();
        for number in 0..3 {
            let (sender, barrier) = (client.sender(), Arc::clone(&barrier));
            closes.push(tokio::spawn(async move {
                barrier.wait().await;
                sender.close(CloseCode(4000 + number), "").await
            }));
        }
        let receiving = tokio::spawn(async move {
            barrier.wait().await;
            client.recv().await
        });
        let all = async {
            for close in closes {
                let code = close.await.unwrap().unwrap().code();
                assert!((4000..4003).contains(&code.0), "the peer echoes the first: {code}");
            }
            assert_eq!(receiving.await.unwrap().unwrap(), None);
            peer.await.unwrap();
        };
        timeout(Duration::from_secs(20), all).await.expect("nobody hangs");
    }
}

#[tokio::test]
async fn a_dropped_websocket_fails_its_senders_but_writes_what_was_accepted() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default().write_buffer(1));
        wire.set_room(0);
        let sender = socket.sender();
        socket.send("accepted").await.unwrap();
        let waiting = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send("waits").await }
        });
        settle().await;
        drop(socket);
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(sender.send("late").await.unwrap_err().kind(), ErrorKind::Closed);
        assert!(sender.is_closed());
        sender.closed().await;
        wire.set_room(usize::MAX);
        wire.until(Wire::is_shut_down).await;
        assert_eq!(all_frames(role, wire.take_written()), [Frame::text("accepted")], "and no Close frame");
        assert!(!wire.is_dropped(), "the peer has not ended its direction");
        wire.end();
        wire.until(Wire::is_dropped).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_websocket_holds_its_transport_for_the_close_timeout_at_most() {
    let limits = Limits::default().close_timeout(Duration::from_secs(3));
    let (socket, wire) = open(Role::Server, limits);
    wire.set_room(1);
    socket.send("stuck").await.unwrap();
    let start = tokio::time::Instant::now();
    drop(socket);
    wire.until(Wire::is_dropped).await;
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

/// A task that sends to many connections may exhaust its budget, but no transport is held back by that.
#[tokio::test]
async fn a_broadcast_is_written_at_once_to_all() {
    let connections: Vec<_> = (0..1000).map(|_| open(Role::Server, Limits::default())).collect();
    let message = Prepared::new("to all");
    for (socket, _) in &connections {
        socket.try_send(&message).unwrap();
    }
    for (number, (_, wire)) in connections.iter().enumerate() {
        assert_eq!(all_frames(Role::Server, wire.take_written()), [Frame::text("to all")], "{number}");
    }
}
