//! The work of one poll is bounded, and waiters are served in order of arrival.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bowline::{CloseCode, Limits, Role, pair};
use tokio::io::AsyncReadExt;

use crate::support::frames::{Frame, encode_all};
use crate::support::wire::Wire;
use crate::support::{open, peer_of, poll_once, poll_times, settle};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

// ---- the work of one poll

/// The number of frames in a flood.
const FLOOD: usize = 400_000;

/// Polls a future to its end, with tokio's budget for each poll as in a task, and counts the polls.
async fn count_polls<F: Future>(mut future: Pin<&mut F>) -> (usize, F::Output) {
    let mut polls = 0;
    let output = poll_fn(|cx| {
        polls += 1;
        future.as_mut().poll(cx)
    })
    .await;
    (polls, output)
}

/// Ignored frames, of which one poll may skip 128 units of 32, and a few more.
fn assert_bounded(polls: usize, name: &str) {
    let bound = FLOOD / (128 * 32) / 2;
    assert!(polls >= bound, "{name}: {polls} polls for {FLOOD} frames, {bound} expected at least");
}

#[tokio::test]
async fn skipped_frames_are_work() {
    for role in ROLES {
        let peer = peer_of(role);
        for (name, frame) in [
            ("pongs", Frame::pong("")),
            ("pongs of eight bytes", Frame::pong("12345678")),
            ("pings", Frame::ping("")),
        ] {
            let (mut socket, wire) = open(role, Limits::default());
            wire.feed(&encode_all(peer, &vec![frame; FLOOD]));
            wire.feed_frame(peer, &Frame::text("behind"));
            let (polls, message) =
                tokio::spawn(async move { count_polls(pin!(socket.recv())).await }).await.unwrap();
            assert_eq!(message.unwrap(), Some("behind".into()));
            assert_bounded(polls, name);
        }
    }
}

#[tokio::test]
async fn fragments_are_work_whether_anyone_wants_them_or_not() {
    for role in ROLES {
        let peer = peer_of(role);
        for abandoned in [false, true] {
            let (mut socket, wire) = open(role, Limits::default().frames_per_message(u32::MAX));
            wire.feed_frame(peer, &Frame::binary("begins").unfinished());
            if abandoned {
                let mut reader = socket.reader().await.unwrap().unwrap();
                reader.read_exact(&mut [0; 6]).await.unwrap();
            }
            wire.feed(&encode_all(peer, &vec![Frame::continuation("").unfinished(); FLOOD]));
            wire.feed_frame(peer, &Frame::continuation(""));
            wire.feed_frame(peer, &Frame::text("behind"));
            let (polls, message) =
                tokio::spawn(async move { count_polls(pin!(socket.recv())).await }).await.unwrap();
            let expected = if abandoned { "behind".into() } else { b"begins".as_slice().into() };
            assert_eq!(message.unwrap(), Some(expected));
            assert_bounded(polls, if abandoned { "an abandoned message" } else { "a message" });
        }
    }
}

/// A unit of the budget pays for 32 replies to a batch.
#[tokio::test]
async fn replies_within_a_batch_are_work() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2")]));
    let replying = async {
        socket.recv().await.unwrap().unwrap();
        for _ in 0..FLOOD {
            socket.send("").await.unwrap();
        }
    };
    let (polls, ()) = count_polls(pin!(replying)).await;
    assert_bounded(polls, "replies");
    assert_eq!(wire.written_len(), 2 * FLOOD);
}

/// Data after our Close frame is searched for the peer's, and discarded.
#[tokio::test]
async fn data_behind_our_close_frame_is_work() {
    for role in ROLES {
        for in_task in [false, true] {
            let (mut socket, wire) = open(role, Limits::default());
            let sender = socket.sender();
            let mut close = Box::pin(async move { sender.close(CloseCode::NORMAL, "").await });
            assert!(poll_once(close.as_mut()).await.is_none());
            let peer = peer_of(role);
            wire.feed(&encode_all(peer, &vec![Frame::text(""); FLOOD]));
            wire.feed_frame(peer, &Frame::close(1000, ""));
            wire.end();
            if in_task {
                // Only the connection's own task reads, and it lets others run all the time.
                let mut turns = 0;
                while poll_once(close.as_mut()).await.is_none() {
                    turns += 1;
                    tokio::task::yield_now().await;
                }
                assert_bounded(turns, "data after our Close frame, in the connection's task");
            } else {
                let (polls, end) =
                    tokio::spawn(async move { count_polls(pin!(socket.recv())).await }).await.unwrap();
                assert_eq!(end.unwrap(), None);
                assert_bounded(polls, "data after our Close frame");
                close.await.unwrap();
            }
        }
    }
}

/// A poll takes at most as long as a few reads, whatever arrives, and another connection on the thread is
/// served in between.
#[tokio::test]
async fn no_flood_keeps_the_thread_from_others() {
    for role in ROLES {
        let peer = peer_of(role);
        let (mut socket, wire) = open(role, Limits::default());
        wire.feed(&encode_all(peer, &vec![Frame::pong(""); FLOOD]));
        wire.feed_frame(peer, &Frame::text("behind"));
        let flooded = tokio::spawn(async move { socket.recv().await });
        let (mut quiet, mut other) = bowline::pair();
        tokio::spawn(async move {
            while let Ok(Some(message)) = other.recv().await {
                let _ = other.send(message).await;
            }
        });
        let mut echoes = 0;
        while !flooded.is_finished() {
            quiet.send("?").await.unwrap();
            quiet.recv().await.unwrap().unwrap();
            echoes += 1;
        }
        assert!(echoes >= 20, "{role:?}: {echoes} echoes while {FLOOD} frames were passed over");
    }
}

// ---- pings

/// Pings that arrive together are answered together, each of them, in their order.
#[tokio::test]
async fn pongs_to_pings_that_arrived_together_leave_together() {
    for role in ROLES {
        for reads in [true, false] {
            let (mut socket, wire) = open(role, Limits::default());
            settle().await;
            let pings: Vec<_> = (0..200).map(|number| Frame::ping(format!("{number}"))).collect();
            wire.feed(&encode_all(peer_of(role), &pings));
            if reads {
                assert!(poll_times(10, socket.recv()).await.is_none());
            }
            settle().await;
            let (_, writes) = wire.calls();
            assert!(writes <= 6, "{role:?}: {writes} writes for 200 pings");
            let expected: Vec<_> = (0..200).map(|number| Frame::pong(format!("{number}"))).collect();
            assert_eq!(wire.take_frames(role), expected);
        }
    }
}

// ---- those who wait

#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Waiters for the end are not woken by earlier writes.
#[tokio::test]
async fn waiters_for_the_end_are_woken_only_by_the_end() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let sender = socket.sender();
    let counting = Arc::new(Counting::default());
    let waker = Waker::from(Arc::clone(&counting));
    let mut cx = Context::from_waker(&waker);
    let mut watchers: Vec<_> = (0..100).map(|_| Box::pin(sender.closed())).collect();
    for watcher in &mut watchers {
        assert!(watcher.as_mut().poll(&mut cx).is_pending());
    }
    for _ in 0..1000 {
        sender.send("message").await.unwrap();
    }
    let answer = async {
        loop {
            let frame = wire.next_frame(Role::Server).await;
            if frame.opcode == bowline_proto::Opcode::Ping {
                break wire.feed_frame(Role::Client, &Frame::pong(&frame.payload));
            }
        }
    };
    let (pong, ()) = tokio::join!(sender.ping(), answer);
    pong.unwrap();
    assert_eq!(counting.0.load(Ordering::SeqCst), 0);
    drop(socket);
    assert_eq!(counting.0.load(Ordering::SeqCst), 100);
    for watcher in &mut watchers {
        assert!(watcher.as_mut().poll(&mut cx).is_ready());
    }
}

/// Returns the text of each message written from now on.
fn texts(wire: &Wire) -> Vec<String> {
    let frames = wire.take_frames(Role::Server);
    frames.iter().map(|frame| String::from_utf8(frame.payload.clone()).unwrap()).collect()
}

#[cfg(feature = "futures")]
mod polling {
    use super::*;

    use bowline::{MessageKind, TrySendError};
    use futures_util::SinkExt;
    use tokio::io::AsyncWriteExt;

    /// Lets the stream accept one message at a time.
    async fn let_one_out(wire: &Wire) {
        wire.set_room(wire.room() + 4);
        settle().await;
    }

    /// A `send`, a sink and a byte stream at once, over and over: none passes another.
    #[tokio::test]
    async fn all_who_send_take_turns_whichever_way_they_send() {
        let (socket, wire) = open(Role::Server, Limits::default().write_buffer(1));
        wire.set_room(0);
        let sender = socket.sender();
        sender.send("xx").await.unwrap();
        let sinking = tokio::spawn({
            let mut sink = sender.clone().into_sink();
            async move { while sink.feed("si".into()).await.is_ok() {} }
        });
        settle().await;
        let sending = tokio::spawn({
            let sender = sender.clone();
            async move { while sender.send("se").await.is_ok() {} }
        });
        settle().await;
        let streaming = tokio::spawn(async move {
            let mut stream = socket.into_io(MessageKind::Text);
            while stream.write_all(b"st").await.is_ok() {}
        });
        settle().await;
        for _ in 0..300 {
            let_one_out(&wire).await;
        }
        let texts = texts(&wire);
        assert!(texts.len() >= 290, "{}", texts.len());
        for (number, text) in texts.iter().enumerate().skip(1) {
            assert_eq!(text, ["st", "si", "se"][number % 3], "{number} of {texts:?}");
        }
        for task in [sinking, sending, streaming] {
            task.abort();
        }
    }

    /// A sink that has given way to earlier senders, and is no longer polled, is also passed over.
    #[tokio::test(start_paused = true)]
    async fn a_sink_that_gave_way_and_stopped_is_passed() {
        let (socket, wire) = open(Role::Server, Limits::default().write_buffer(8));
        wire.set_room(0);
        let sender = socket.sender();
        sender.send("fills the buffer").await.unwrap();
        let mut sinks = [sender.clone().into_sink(), sender.clone().into_sink()];
        for sink in &mut sinks {
            assert!(poll_once(pin!(sink.feed("no".into()))).await.is_none());
        }
        let mut third = Box::pin(sender.send("third"));
        assert!(poll_once(third.as_mut()).await.is_none());
        // All are woken. The first was dropped; the second is polled once, as in a `select!` whose other
        // branch is ready.
        wire.set_room(usize::MAX);
        settle().await;
        assert!(poll_once(pin!(sinks[1].feed("no".into()))).await.is_none());
        tokio::time::timeout(Duration::from_secs(60), third)
            .await
            .expect("nobody in front is polled")
            .unwrap();
    }

    /// A sink that is no longer polled holds up no sender.
    #[tokio::test]
    async fn a_sink_that_is_polled_no_more_is_passed() {
        let (socket, wire) = open(Role::Server, Limits::default().write_buffer(1));
        wire.set_room(0);
        let sender = socket.sender();
        sender.send("xx").await.unwrap();
        let mut sinks: Vec<_> = (0..3).map(|_| sender.clone().into_sink()).collect();
        for sink in &mut sinks {
            assert!(poll_once(pin!(sink.feed("no".into()))).await.is_none());
        }
        let mut live = sender.clone().into_sink();
        let feeding = tokio::spawn(async move {
            live.feed("a_".into()).await.unwrap();
            live
        });
        settle().await;
        let sending = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send("b_").await.unwrap() }
        });
        settle().await;
        for _ in 0..3 {
            let_one_out(&wire).await;
        }
        let live = feeding.await.unwrap();
        sending.await.unwrap();
        assert_eq!(texts(&wire), ["xx", "a_", "b_"]);
        // `try_send` can't let the others run first: it returns `Full` once.
        let mut tries = 0;
        while let Err(TrySendError::Full(_)) = sender.try_send("c_") {
            tries += 1;
            assert!(tries < 3);
        }
        // A sink that is polled again regains its place.
        assert!(poll_once(pin!(sinks[0].feed("d_".into()))).await.is_none());
        let sending = tokio::spawn({
            let sender = sender.clone();
            async move { sender.send("e_").await.unwrap() }
        });
        settle().await;
        let mut first = sinks.remove(0);
        let feeding = tokio::spawn(async move { first.feed("d_".into()).await.map(|()| first) });
        for _ in 0..4 {
            let_one_out(&wire).await;
        }
        sending.await.unwrap();
        drop((feeding.await.unwrap().unwrap(), live));
        assert_eq!(texts(&wire), ["c_", "d_", "e_"]);
    }
}

/// A `send` whose future is kept holds its place, as its docs say; dropping it gives the place to the next.
#[tokio::test(start_paused = true)]
async fn a_dropped_send_gives_its_place_to_the_next() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(1));
    wire.set_room(0);
    let sender = socket.sender();
    sender.send("xx").await.unwrap();
    let mut kept = Box::pin(sender.send("no"));
    assert!(poll_once(kept.as_mut()).await.is_none());
    let next = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send("ok").await.unwrap() }
    });
    settle().await;
    wire.set_room(usize::MAX);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!next.is_finished());
    drop(kept);
    next.await.unwrap();
    settle().await;
    assert_eq!(texts(&wire), ["xx", "ok"]);
}

/// A loop over what is ready at once takes turns with other tasks.
#[tokio::test]
async fn flushes_of_nothing_leave_time_to_others() {
    let (client, _server) = pair();
    let sender = client.sender();
    let other = tokio::spawn(async {});
    let mut flushes = 0;
    while !other.is_finished() {
        sender.flush().await.unwrap();
        flushes += 1;
        assert!(flushes < 10_000, "the other task has no turn");
    }
    client.begin_close(CloseCode::NORMAL, "").unwrap();
    let other = tokio::spawn(async {});
    for _ in 0..10_000 {
        sender.closed().await;
    }
    assert!(other.is_finished(), "the other task has no turn");
}
