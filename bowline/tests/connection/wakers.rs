//! Wakers of all kinds, and futures that are kept but not polled.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bowline::{Acceptor, Adoption, CloseCode, Connector, Limits, Role, Sender};
use tokio::io::{AsyncReadExt, BufWriter};
use tokio::time::Instant;

use crate::support::frames::{Frame, all_frames};
use crate::support::wire::wire;
use crate::support::{open, peer_of, poll_once, settle};

/// A waker that counts its wake-ups.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker that calls the library when woken, like an executor that polls at once.
struct Calling {
    sender: Sender,
    woken: Mutex<usize>,
}

impl Wake for Calling {
    fn wake(self: Arc<Self>) {
        let _ = self.sender.try_send("from a waker");
        let closed = self.sender.is_closed();
        *self.woken.lock().unwrap() += 1 + usize::from(closed);
    }
}

#[tokio::test]
async fn a_recv_that_moves_to_another_task_is_woken_there() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        // A stream that returns `Pending` for every other read, and wakes during that call.
        wire.set_hesitating();
        let (one, two) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
        let (first, second) = (Waker::from(Arc::clone(&one)), Waker::from(Arc::clone(&two)));
        let mut recv = pin!(socket.recv());
        let mut polls = 0;
        // Until it sleeps.
        while one.0.load(Ordering::SeqCst) == polls {
            polls += 1;
            assert!(recv.as_mut().poll(&mut Context::from_waker(&first)).is_pending());
            assert!(polls < 10, "it wakes itself for ever");
        }
        while one.0.swap(0, Ordering::SeqCst) > 0 {
            assert!(recv.as_mut().poll(&mut Context::from_waker(&first)).is_pending());
        }
        // From now on, this waker has to be called.
        assert!(recv.as_mut().poll(&mut Context::from_waker(&second)).is_pending());
        wire.feed_frame(peer_of(role), &Frame::text("at last"));
        let mut output = Poll::Pending;
        while output.is_pending() && two.0.swap(0, Ordering::SeqCst) > 0 {
            output = recv.as_mut().poll(&mut Context::from_waker(&second));
        }
        assert!(matches!(output, Poll::Ready(Ok(Some(_)))), "{role:?}: {output:?}");
    }
}

/// This hangs unless the lock was released before.
#[test]
fn a_waker_may_call_the_library() {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (socket, wire) = open(Role::Server, Limits::default().write_buffer(1));
            wire.set_room(0);
            let sender = socket.sender();
            let calling = Arc::new(Calling { sender: sender.clone(), woken: Mutex::new(0) });
            let waker = Waker::from(Arc::clone(&calling));
            let mut cx = Context::from_waker(&waker);
            socket.send("it fills the buffer").await.unwrap();
            let mut waiting = [Box::pin(sender.send("waits")), Box::pin(sender.send("waits, too"))];
            for send in &mut waiting {
                assert!(send.as_mut().poll(&mut cx).is_pending());
            }
            let mut closed = pin!(sender.closed());
            assert!(closed.as_mut().poll(&mut cx).is_pending());
            wire.set_room(30);
            settle().await;
            assert!(*calling.woken.lock().unwrap() > 0, "a sender's turn has come");
            let mut close = pin!(socket.close(CloseCode::NORMAL, ""));
            assert!(poll_once(close.as_mut()).await.is_none());
            assert!(closed.as_mut().poll(&mut cx).is_ready());
            wire.set_room(usize::MAX);
            wire.feed_frame(Role::Client, &Frame::close(1000, ""));
            wire.end();
            close.await.unwrap();
        });
        done.send(()).unwrap();
    });
    result.recv_timeout(Duration::from_secs(20)).expect("a waker that calls the library hangs or fails");
}

/// A `recv` future is kept while another future is awaited: arriving bytes wake a task that doesn't poll the
/// `recv`.
#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_a_recv_is_kept_but_not_polled() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        for number in 0..3_u8 {
            let mut recv = pin!(socket.recv());
            assert!(poll_once(recv.as_mut()).await.is_none());
            settle().await;
            for again in 0..3 {
                let start = Instant::now();
                wire.feed_frame(peer_of(role), &Frame::ping([number, again]));
                assert_eq!(wire.next_frame(role).await, Frame::pong([number, again]));
                assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            }
            // The `recv` receives a message, and the application starts again.
            wire.feed_frame(peer_of(role), &Frame::text("message"));
            assert_eq!(recv.as_mut().await.unwrap(), Some("message".into()));
        }
        // The peer's Close frame is handled alike.
        let mut recv = pin!(socket.recv());
        assert!(poll_once(recv.as_mut()).await.is_none());
        let start = Instant::now();
        wire.feed_frame(peer_of(role), &Frame::close(1000, ""));
        assert_eq!(wire.next_frame(role).await.close_code(), 1000);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(recv.await.unwrap(), None);
    }
}

/// An application that just received a message is left alone for a while, but nothing else has to wait for
/// this.
#[tokio::test(start_paused = true)]
async fn an_application_that_is_left_alone_delays_neither_writing_nor_the_end() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        {
            let mut recv = pin!(socket.recv());
            assert!(poll_once(recv.as_mut()).await.is_none());
            wire.feed_frame(peer_of(role), &Frame::text("message"));
            assert_eq!(recv.await.unwrap(), Some("message".into()));
        }
        settle().await;

        let start = Instant::now();
        wire.set_room(0);
        socket.send("reply").await.unwrap();
        settle().await;
        wire.set_room(1000);
        assert_eq!(wire.next_frame(role).await, Frame::text("reply"));
        assert_eq!(start.elapsed(), Duration::ZERO);

        let mut ping = pin!(socket.ping());
        assert!(poll_once(ping.as_mut()).await.is_none());
        let sent = wire.next_frame(role).await;
        wire.feed_frame(peer_of(role), &Frame::pong(sent.payload));
        assert_eq!(ping.await.unwrap(), Duration::ZERO);

        let mut close = pin!(socket.close(CloseCode::NORMAL, ""));
        assert!(poll_once(close.as_mut()).await.is_none());
        assert_eq!(wire.next_frame(role).await.close_code(), 1000);
        wire.feed_frame(peer_of(role), &Frame::close(1000, ""));
        wire.end();
        close.await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_for_a_recv_that_is_not_polled_waits_for_it() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    let mut recv = pin!(socket.recv());
    assert!(poll_once(recv.as_mut()).await.is_none());
    wire.feed_frame(Role::Client, &Frame::ping("before"));
    wire.feed_frame(Role::Client, &Frame::text("message"));
    wire.feed_frame(Role::Client, &Frame::ping("behind"));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("before"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(wire.take_written().is_empty(), "a ping behind an unread message waits");
    assert_eq!(recv.await.unwrap(), Some("message".into()));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("behind"));
}

/// Steady traffic is not watched at every message: the connection's task checks now and then.
#[tokio::test(start_paused = true)]
async fn a_kept_recv_is_noticed_under_steady_traffic_too() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    for number in 0..100_u8 {
        {
            let mut recv = pin!(socket.recv());
            assert!(poll_once(recv.as_mut()).await.is_none());
            wire.feed_frame(Role::Client, &Frame::binary([number]));
            assert_eq!(recv.await.unwrap(), Some([number].as_slice().into()));
        }
        let mut recv = pin!(socket.recv());
        assert!(poll_once(recv.as_mut()).await.is_none());
        tokio::time::sleep(Duration::from_millis(u64::from(number) * 7)).await;
        let start = Instant::now();
        wire.feed_frame(Role::Client, &Frame::ping([number]));
        assert_eq!(wire.next_frame(Role::Server).await, Frame::pong([number]));
        assert!(start.elapsed() < Duration::from_secs(1), "{number}: {:?}", start.elapsed());
    }
}

/// The connection's task reads for a local ping, and afterwards watches as before.
#[tokio::test(start_paused = true)]
async fn a_kept_recv_is_noticed_after_a_ping_of_ours() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    let sender = socket.sender();
    let mut recv = pin!(socket.recv());
    assert!(poll_once(recv.as_mut()).await.is_none());
    let mut ping = pin!(sender.ping());
    assert!(poll_once(ping.as_mut()).await.is_none());
    let ours = wire.next_frame(Role::Server).await;
    wire.feed_frame(Role::Client, &Frame::pong(ours.payload));
    ping.await.unwrap();
    assert!(poll_once(recv.as_mut()).await.is_none());
    settle().await;
    let start = Instant::now();
    wire.feed_frame(Role::Client, &Frame::ping("theirs"));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("theirs"));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// A reader that was read to its end, but not dropped, doesn't keep later frames unread.
#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_a_reader_is_kept_beyond_its_end() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        wire.feed_frame(peer_of(role), &Frame::text("whole"));
        let mut reader = socket.reader().await.unwrap().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "whole");
        let start = Instant::now();
        for number in 0..3_u8 {
            wire.feed_frame(peer_of(role), &Frame::ping([number]));
            assert_eq!(wire.next_frame(role).await, Frame::pong([number]));
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        // Bytes of the next message are not returned to this reader.
        wire.feed_frame(peer_of(role), &Frame::text("next"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(reader.read_to_string(&mut text).await.unwrap(), 0);
        drop(reader);
        assert_eq!(socket.recv().await.unwrap(), Some("next".into()));
    }
}

/// The stream buffers, so that its flush blocks instead of its write.
#[tokio::test]
async fn a_flush_that_was_blocked_goes_on() {
    for role in [Role::Client, Role::Server] {
        let (stream, wire) = wire();
        let stream = BufWriter::with_capacity(1000, stream);
        let socket = match role {
            Role::Client => Connector::new().adopt(stream, Adoption::new()).unwrap(),
            Role::Server => Acceptor::new().adopt(stream, Adoption::new()).unwrap(),
        };
        wire.set_room(0);
        socket.send("buffered").await.unwrap();
        let sender = socket.sender();
        let flushing = tokio::spawn(async move { sender.flush().await });
        settle().await;
        assert!(!flushing.is_finished());
        wire.set_room(usize::MAX);
        flushing.await.unwrap().unwrap();
        assert_eq!(all_frames(role, wire.take_written()), [Frame::text("buffered")]);

        wire.set_room(0);
        socket.send("buffered").await.unwrap();
        wire.feed_frame(peer_of(role), &Frame::ping("owed"));
        settle().await;
        wire.set_room(usize::MAX);
        assert_eq!(wire.next_frame(role).await, Frame::text("buffered"));
        assert_eq!(wire.next_frame(role).await, Frame::pong("owed"));
    }
}

/// A `block_on` future is ready in the poll that has spent tokio's budget. The wakers that the streams would
/// have called are then forgotten.
#[test]
fn a_spent_budget_loses_no_wakeup() {
    for count in 120..=130 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (client, mut server) = runtime.block_on(async { bowline::pair() });
        runtime.block_on(async {
            for _ in 0..count {
                client.send("x").await.unwrap();
            }
            client.flush().await.unwrap();
        });
        runtime.block_on(async {
            for _ in 0..count {
                server.recv().await.unwrap().unwrap();
            }
        });
        runtime.block_on(async {
            let receiving = tokio::spawn(async move { server.recv().await });
            settle().await;
            client.send("late").await.unwrap();
            let received = tokio::time::timeout(Duration::from_secs(10), receiving).await;
            let received = received.unwrap_or_else(|_| panic!("nobody was woken after {count} messages"));
            assert_eq!(received.unwrap().unwrap(), Some("late".into()));
        });
    }
}
