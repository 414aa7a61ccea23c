//! `Sender::batch` and `WebSocket::batch`: one write for many messages, and nothing held back for long.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bowline::{Acceptor, Adoption, CloseCode, ErrorKind, Limits, Prepared, Role, TrySendError, WebSocket};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::support::frames::{Frame, all_frames, encode_all};
use crate::support::{open, poll_times, settle};

fn runtimes() -> [Runtime; 2] {
    [Builder::new_current_thread(), Builder::new_multi_thread()]
        .map(|mut builder| builder.worker_threads(1).enable_all().build().unwrap())
}

fn numbers(count: usize) -> Vec<Frame> {
    (0..count).map(|number| Frame::text(number.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_written_once_when_it_is_dropped() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        for batch in [sender.batch(), socket.batch()] {
            let before = wire.calls().1;
            for number in 0..8 {
                batch.send(number.to_string()).await.unwrap();
            }
            for number in 8..12 {
                batch.try_send(number.to_string()).unwrap();
            }
            for number in 12..16 {
                batch.send(&Prepared::new(number.to_string())).await.unwrap();
            }
            assert_eq!(wire.calls().1, before, "nothing is written before the guard is dropped");
            drop(batch);
            assert_eq!(wire.calls().1, before + 1);
            assert_eq!(wire.take_frames(role), numbers(16));
        }
        // Each later message is written at once again.
        sender.send("alone").await.unwrap();
        assert_eq!(wire.take_frames(role), [Frame::text("alone")]);
    }
}

/// `try_send_all` stops at the first message for which there is no room, and returns the rest.
#[tokio::test(start_paused = true)]
async fn many_messages_are_sent_in_order_as_far_as_there_is_room() {
    let prepared: Vec<_> = (0..1000).map(|number: usize| Prepared::new(number.to_string())).collect();
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default().write_buffer(100));
        let sender = socket.sender();
        let batch = sender.batch();
        assert!(batch.try_send_all(&[]).is_ok());
        assert!(batch.try_send_all(&prepared[..16]).is_ok());
        assert_eq!(wire.calls().1, 0, "nothing is written before the guard is dropped");
        drop(batch);
        assert_eq!(wire.calls().1, 1);
        assert_eq!(wire.take_frames(role), numbers(16));
        // There is always room, as the transport takes everything.
        sender.batch().try_send_all(&prepared).unwrap();
        assert_eq!(wire.take_frames(role), numbers(1000));
        let writes = wire.calls().1;
        assert!((8..=40).contains(&writes), "{writes} writes of about 400 bytes each");

        wire.set_room(0);
        let batch = sender.batch();
        let Err(TrySendError::Full(rest)) = batch.try_send_all(&prepared) else { panic!("there is room") };
        let accepted = prepared.len() - rest.len();
        assert!((15..=200).contains(&accepted), "{accepted} messages wait");
        let Err(TrySendError::Full(still)) = batch.try_send_all(rest) else { panic!("there is room") };
        assert_eq!(still.len(), rest.len());
        wire.set_room(usize::MAX);
        sender.flush().await.unwrap();
        batch.try_send_all(rest).unwrap();
        drop(batch);
        assert_eq!(wire.take_frames(role), numbers(1000));

        assert!(poll_times(1, sender.close(CloseCode::NORMAL, "")).await.is_none());
        let late = sender.batch().try_send_all(&prepared[..3]);
        assert!(matches!(late, Err(TrySendError::Closed(rest)) if rest.len() == 3));
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_batch_writes_nothing() {
    let (socket, wire) = open(Role::Server, Limits::default());
    drop(socket.sender().batch());
    assert_eq!(wire.calls().1, 0);
}

/// A panic drops the guard.
#[tokio::test]
async fn a_panic_writes_what_was_accepted() {
    let panic_in_batch = |socket: &WebSocket| {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let batch = socket.batch();
            batch.try_send("0").unwrap();
            batch.try_send("1").unwrap();
            panic!("in the middle of a batch");
        }));
        assert!(panicked.is_err());
    };
    let (server, mut peer) = connect_blocking_peer().await;
    panic_in_batch(&server);
    // No other task has run since.
    let mut written = vec![0; encode_all(Role::Server, &numbers(2)).len()];
    peer.read_exact(&mut written).unwrap();
    assert_eq!(all_frames(Role::Server, written), numbers(2));

    // A stream of the application may itself panic, so it is not polled while a panic is under way.
    let (socket, wire) = open(Role::Server, Limits::default());
    panic_in_batch(&socket);
    assert_eq!(wire.calls().1, 0);
    settle().await;
    assert_eq!(wire.take_frames(Role::Server), numbers(2));
    assert_eq!(wire.calls().1, 1);
}

/// Neither a guard that is kept across an await nor one that is leaked holds its messages back.
#[test]
fn the_messages_are_written_when_the_task_yields() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let (socket, wire) = open(Role::Server, Limits::default());
            let task = tokio::spawn(async move {
                let sender = socket.sender();
                let batch = sender.batch();
                batch.send("0").await.unwrap();
                batch.send("1").await.unwrap();
                assert_eq!(wire.calls().1, 0);
                settle().await;
                assert_eq!(wire.take_frames(Role::Server), numbers(2), "the guard is kept");
                batch.send("2").await.unwrap();
                std::mem::forget(batch);
                settle().await;
                assert_eq!(wire.take_frames(Role::Server), [Frame::text("2")], "the guard is leaked");
                sender.send("3").await.unwrap();
                assert_eq!(wire.take_frames(Role::Server), [Frame::text("3")]);
            });
            task.await.unwrap();
        });
    }
}

/// The end of a call of `block_on` in which the guard of a batch is leaked.
#[derive(Clone, Copy)]
enum LastPoll {
    Leaks,
    /// The poll before has leaked the guard.
    Follows,
    /// A task has leaked the guard, and its end wakes the future.
    Joins,
}

/// The tasks of a current-thread runtime don't run after the last call of `block_on`, and not all of those
/// that are ready run between two polls of its future.
#[test]
fn the_messages_are_written_when_block_on_returns() {
    for last in [LastPoll::Leaks, LastPoll::Follows, LastPoll::Joins] {
        let runtime = Builder::new_current_thread().enable_all().event_interval(3).build().unwrap();
        let (socket, mut peer) = runtime.block_on(async {
            let (socket, peer) = connect_blocking_peer().await;
            for _ in 0..10 {
                tokio::spawn(std::future::poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    std::task::Poll::<()>::Pending
                }));
            }
            (socket, peer)
        });
        leak_batch(&runtime, &socket, last);
        let mut written = vec![0; encode_all(Role::Server, &numbers(2)).len()];
        peer.read_exact(&mut written).expect("the messages are written, though nobody runs the runtime");
        assert_eq!(all_frames(Role::Server, written), numbers(2));

        // A stream of the application.
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (socket, wire) = runtime.block_on(async {
            let opened = open(Role::Server, Limits::default());
            settle().await;
            opened
        });
        leak_batch(&runtime, &socket, last);
        assert_eq!(wire.take_frames(Role::Server), numbers(2));
        assert_eq!(wire.calls().1, 1);
    }
}

fn leak_batch(runtime: &Runtime, socket: &WebSocket, last: LastPoll) {
    let sender = socket.sender();
    let leaks = async move {
        let batch = sender.batch();
        batch.send("0").await.unwrap();
        batch.try_send("1").unwrap();
        std::mem::forget(batch);
    };
    runtime.block_on(async {
        match last {
            LastPoll::Leaks => leaks.await,
            LastPoll::Follows => {
                leaks.await;
                tokio::task::yield_now().await;
            }
            LastPoll::Joins => tokio::spawn(leaks).await.unwrap(),
        }
    });
}

/// Opens a connection over TCP, and returns its peer, which waits for 20 s at most.
async fn connect_blocking_peer() -> (WebSocket, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let stream = listener.accept().await.unwrap().0;
    (Acceptor::new().adopt(stream, Adoption::new()).unwrap(), peer)
}

/// A loop without a runtime, such as that of a game.
#[test]
fn a_thread_without_a_runtime_gathers_too() {
    for runtime in runtimes() {
        let (socket, wire) = runtime.block_on(async {
            let opened = open(Role::Server, Limits::default());
            settle().await;
            opened
        });
        let sender = socket.sender();
        let batch = sender.batch();
        batch.try_send("0").unwrap();
        batch.try_send("1").unwrap();
        drop(batch);
        assert_eq!(wire.take_frames(Role::Server), numbers(2));
        let leaked = sender.batch();
        leaked.try_send("2").unwrap();
        std::mem::forget(leaked);
        // Less than the keepalive takes, whose ping would take the message along.
        let written = async { timeout(Duration::from_secs(10), wire.next_frame(Role::Server)).await };
        assert_eq!(runtime.block_on(written).unwrap(), Frame::text("2"));
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_written_takes_a_batch_along() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let sender = socket.sender();
    let batch = sender.batch();
    batch.send("0").await.unwrap();
    // A message of another sender is not delayed.
    sender.try_send("1").unwrap();
    assert_eq!(wire.take_frames(Role::Server), numbers(2));
    batch.send("2").await.unwrap();
    sender.flush().await.unwrap();
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("2")]);
    batch.send("3").await.unwrap();
    assert!(poll_times(1, sender.ping()).await.is_none());
    let frames = wire.take_frames(Role::Server);
    assert_eq!(frames[0], Frame::text("3"));
    assert_eq!(frames.len(), 2, "and the ping");
    batch.send("4").await.unwrap();
    assert!(poll_times(1, sender.close(CloseCode::NORMAL, "")).await.is_none());
    let frames = wire.take_frames(Role::Server);
    assert_eq!(frames, [Frame::text("4"), Frame::close(1000, "")]);
    assert_eq!(batch.send("late").await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(matches!(batch.try_send("late"), Err(TrySendError::Closed("late"))));
    drop(batch);
    assert_eq!(wire.written_len(), 0);
}

/// Two batches of one connection neither block each other nor lose a message.
#[tokio::test(start_paused = true)]
async fn batches_may_overlap() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let (one, other) = (socket.batch(), socket.batch());
    one.send("0").await.unwrap();
    other.send("1").await.unwrap();
    one.send("2").await.unwrap();
    drop(other);
    assert_eq!(wire.take_frames(Role::Server), numbers(3));
    one.send("3").await.unwrap();
    drop(one);
    assert_eq!(wire.take_frames(Role::Server), [Frame::text("3")]);
}

/// A batch of any length takes bounded memory, and waits for room that its own messages occupy.
#[tokio::test(start_paused = true)]
async fn a_long_batch_is_written_in_parts() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(100));
    let batch = socket.batch();
    for number in 0..1000 {
        // There is always room, as the transport takes everything.
        batch.try_send(number.to_string()).unwrap();
    }
    drop(batch);
    assert_eq!(wire.take_frames(Role::Server), numbers(1000));
    let writes = wire.calls().1;
    assert!((8..=20).contains(&writes), "{writes} writes of about 400 bytes each");

    wire.set_room(0);
    let batch = socket.batch();
    let mut accepted = 0;
    while batch.try_send(accepted.to_string()).is_ok() {
        accepted += 1;
    }
    assert!((30..=200).contains(&accepted), "{accepted} messages wait");
    assert!(poll_times(5, batch.send("waits")).await.is_none());
    wire.set_room(usize::MAX);
    batch.send(accepted.to_string()).await.unwrap();
    drop(batch);
    assert_eq!(wire.take_frames(Role::Server), numbers(accepted + 1));
}

/// The task that holds the guard ends with its runtime.
#[test]
fn a_dropped_runtime_writes_a_batch() {
    for runtime in runtimes() {
        let (wire, sender) = runtime.block_on(async {
            let (socket, wire) = open(Role::Server, Limits::default());
            let sender = socket.sender();
            let kept = sender.clone();
            let (having_sent, has_sent) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                let batch = sender.batch();
                batch.send("0").await.unwrap();
                batch.send("1").await.unwrap();
                having_sent.send(()).unwrap();
                std::future::pending::<()>().await;
                drop((batch, socket));
            });
            has_sent.await.unwrap();
            (wire, kept)
        });
        drop(runtime);
        assert_eq!(wire.take_frames(Role::Server), numbers(2));
        assert!(sender.is_closed());
        drop(sender.batch());
    }
}

/// The driver may be due on another thread, which computes: a batch must not wait for that.
#[test]
fn a_batch_never_waits_for_another_thread_that_computes() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut socket, wire) = runtime.block_on(async { open(Role::Server, Limits::default()) });
    wire.feed(&encode_all(Role::Client, &[Frame::text("1"), Frame::text("2")]));
    let (sender, written) = (socket.sender(), wire.clone());
    let (having_corked, has_corked) = std::sync::mpsc::channel();
    let computing = runtime.spawn(async move {
        // More messages are in memory, so this thread is the one that holds replies back.
        socket.recv().await.unwrap().unwrap();
        having_corked.send(()).unwrap();
        let start = std::time::Instant::now();
        while !written.copy_written().ends_with(b"other") {
            assert!(start.elapsed() < Duration::from_secs(20), "the batch is held back");
            std::hint::spin_loop();
        }
    });
    has_corked.recv().unwrap();
    let sending = runtime.spawn(async move {
        let batch = sender.batch();
        batch.send("other").await.unwrap();
        std::mem::forget(batch);
    });
    runtime.block_on(async { (computing.await.unwrap(), sending.await.unwrap()) });
}

/// Many tasks send batches at the same time: no message is lost, and each task's order is kept.
#[test]
fn concurrent_batches_lose_nothing() {
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let (socket, wire) = runtime.block_on(async { open(Role::Server, Limits::default()) });
    let socket = Arc::new(socket);
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let sender = socket.sender();
            runtime.spawn(async move {
                for round in 0..100 {
                    let batch = sender.batch();
                    for number in 0..16 {
                        batch.send(format!("{task} {}", round * 16 + number)).await.unwrap();
                    }
                    if round % 2 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
        socket.flush().await.unwrap();
    });
    let frames = all_frames(Role::Server, wire.take_written());
    for task in 0..4 {
        let prefix = format!("{task} ");
        let of_task: Vec<_> =
            frames.iter().filter(|frame| frame.payload.starts_with(prefix.as_bytes())).cloned().collect();
        let expected: Vec<_> = (0..1600).map(|number| Frame::text(format!("{task} {number}"))).collect();
        assert_eq!(of_task, expected);
    }
}
