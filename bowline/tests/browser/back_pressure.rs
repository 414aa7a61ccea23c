//! Bounds on memory, in both directions.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bowline::{CloseCode, Connector, ErrorKind, Limits, Message, TrySendError, WebSocket};
use futures_util::Sink;
use wasm_bindgen_futures::spawn_local;
use wasm_bindgen_test::wasm_bindgen_test;

use crate::support::{
    Flag, connect, error_of, has_streams, next, outcome, poll_once, sleep, soon, unique_name, url,
};

/// The size of the messages of these tests.
const SIZE: usize = 64 * 1024;

/// Connects to a server that does not receive, and sends until the browser takes no more.
pub(crate) async fn fill(name: &str) -> (WebSocket, usize) {
    let socket = connect(format_args!("/hold?{name}")).await;
    let message = vec![1; 4 * SIZE];
    let (mut sent, mut looks) = (0, 0);
    // The operating systems take some, too, and more after a while.
    while looks < 20 {
        match socket.try_send(&message) {
            Ok(()) => (sent, looks) = (sent + message.len(), 0),
            Err(TrySendError::Full(_)) => {
                sleep(Duration::from_millis(10)).await;
                looks += 1;
            }
            Err(TrySendError::Closed(_)) => panic!("the connection is open"),
        }
    }
    (socket, sent)
}

#[wasm_bindgen_test]
async fn sending_waits_while_the_browser_has_much_to_write() {
    let name = unique_name();
    let socket = connect(format_args!("/hold?{name}")).await;
    connect(format_args!("/release?{name}")).await;
    let message = vec![1; SIZE];
    let (mut sent, mut most) = (0, 0);
    while sent < 16 * 1024 * 1024 {
        soon(socket.send(&message)).await.unwrap();
        sent += message.len();
        most = most.max(socket.pending());
    }
    assert!(most <= 256 * 1024, "{most} bytes were in the browser's buffer");
    soon(socket.flush()).await.unwrap();
    assert_eq!(socket.pending(), 0);
    assert_sum(socket, sent).await;
}

/// Asks the server how much it has received.
pub(crate) async fn assert_sum(mut socket: WebSocket, sent: usize) {
    soon(socket.send("sum")).await.unwrap();
    assert_eq!(next(&mut socket).await, sent.to_string().into());
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
}

#[wasm_bindgen_test]
async fn senders_are_served_in_order_of_arrival() {
    let name = unique_name();
    let (socket, mut sent) = fill(&name).await;
    let order = Rc::new(Cell::new(0));
    for number in 0..5 {
        let (sender, order) = (socket.sender(), Rc::clone(&order));
        spawn_local(async move {
            sender.send(vec![1; SIZE]).await.unwrap();
            assert_eq!(order.replace(number + 1), number);
        });
        sent += SIZE;
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(order.get(), 0, "a sender did not wait");
    assert_eq!(socket.try_send("a message"), Err(TrySendError::Full("a message")));
    // A sender that gives up, in front of all but the first five, holds up nobody and sends nothing.
    let mut dropped = Box::pin(socket.send("dropped"));
    assert!(poll_once(&mut dropped).is_pending());
    let mut waiting = Box::pin(socket.flush());
    assert!(poll_once(&mut waiting).is_pending());
    drop(waiting);
    drop(dropped);
    connect(format_args!("/release?{name}")).await;
    soon(socket.send(vec![1; SIZE])).await.unwrap();
    assert_eq!(order.get(), 5);
    assert_sum(socket, sent + SIZE).await;
}

#[wasm_bindgen_test]
async fn a_sink_that_is_no_longer_polled_is_skipped() {
    let name = unique_name();
    let (socket, sent) = fill(&name).await;
    let (first, second) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
    let mut sinks = [socket.sender().into_sink(), socket.sender().into_sink()];
    for (sink, flag) in sinks.iter_mut().zip([&first, &second]) {
        let waker = Waker::from(Arc::clone(flag));
        assert!(Pin::new(sink).poll_ready(&mut Context::from_waker(&waker)).is_pending());
    }
    connect(format_args!("/release?{name}")).await;
    soon(socket.send(vec![1; SIZE])).await.unwrap();
    assert!(first.is_raised() && second.is_raised());
    // It may come back.
    soon(std::future::poll_fn(|cx| Pin::new(&mut sinks[0]).poll_ready(cx))).await.unwrap();
    Pin::new(&mut sinks[0]).start_send(Message::from(vec![1; SIZE])).unwrap();
    assert_eq!(
        Pin::new(&mut sinks[0]).start_send("too soon".into()).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_sum(socket, sent + 2 * SIZE).await;
}

#[wasm_bindgen_test]
async fn waiting_senders_fail_if_the_connection_ends() {
    let (socket, _) = fill(&unique_name()).await;
    let sender = socket.sender();
    let mut sending = Box::pin(sender.send("waits"));
    assert!(poll_once(&mut sending).is_pending());
    let mut flushing = Box::pin(sender.flush());
    assert!(poll_once(&mut flushing).is_pending());
    drop(socket);
    assert_eq!(error_of(soon(sending).await).kind(), ErrorKind::Closed);
    assert_eq!(error_of(soon(flushing).await).kind(), ErrorKind::Closed);
}

/// Connects to a server that sends `count` messages of `size` bytes as fast as it can.
async fn flood(count: usize, size: usize, name: &str, limits: Limits) -> WebSocket {
    let url = url(format_args!("/flood/{count}/{size}?{name}"));
    soon(Connector::new().limits(limits).connect(url)).await.unwrap().0
}

#[wasm_bindgen_test]
async fn unread_messages_are_bounded() {
    let limits = Limits::default().message_size(SIZE).unread(10 * SIZE);
    let name = unique_name();
    let mut socket = flood(1000, SIZE, &name, limits).await;
    if has_streams() {
        return assert_paused(socket, 1000).await;
    }
    soon(socket.closed()).await;
    let mut received = 0;
    let error = loop {
        match soon(socket.recv()).await {
            Ok(message) => received += message.expect("the connection did not end normally").len(),
            Err(error) => break error,
        }
    };
    // Each message counts for a little more than its payload.
    assert_eq!(received, 9 * SIZE);
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("Limits::unread"), "{error}");
    assert_eq!(error_of(socket.recv().await).kind(), ErrorKind::Limit);
    assert_eq!(error_of(socket.send("late").await).kind(), ErrorKind::Limit);
    assert_eq!(outcome(&format!("{name}-end")).await, "connection closed: 4009 (too many bytes)");
}

#[wasm_bindgen_test]
async fn empty_messages_are_bounded_too() {
    let limits = Limits::default().message_size(0).unread(64 * 100);
    let mut socket = flood(100_000, 0, &unique_name(), limits).await;
    if has_streams() {
        return assert_paused(socket, 1000).await;
    }
    soon(socket.closed()).await;
    for _ in 0..101 {
        assert!(soon(socket.recv()).await.unwrap().is_some());
    }
    assert_eq!(error_of(soon(socket.recv()).await).kind(), ErrorKind::Limit);
}

/// The messages come as they are received, however late.
async fn assert_paused(mut socket: WebSocket, count: usize) {
    sleep(Duration::from_millis(200)).await;
    for _ in 0..count {
        next(&mut socket).await;
    }
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
}

#[wasm_bindgen_test]
async fn a_server_waits_for_a_page_that_does_not_receive() {
    let name = unique_name();
    let limits = Limits::default().message_size(SIZE).unread(2 * SIZE);
    let mut socket = flood(2000, SIZE, &name, limits).await;
    if !has_streams() {
        return;
    }
    // The browser and the operating systems take some.
    let (mut sent, mut looks) = (String::new(), 0);
    while looks < 5 {
        sleep(Duration::from_millis(50)).await;
        let before = std::mem::replace(&mut sent, outcome(&name).await);
        looks = if before == sent { looks + 1 } else { 0 };
    }
    assert!(sent.parse::<usize>().unwrap() < 1000, "{sent} messages were sent while nobody received");
    assert!(!socket.is_closed());
    for _ in 0..2000 {
        assert_eq!(next(&mut socket).await.len(), SIZE);
    }
    assert_eq!(outcome(&name).await, "2000");
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
}

#[wasm_bindgen_test]
async fn unread_messages_do_not_hold_up_the_end() {
    for closes in [true, false] {
        let name = unique_name();
        let limits =
            Limits::default().message_size(SIZE).unread(if has_streams() { SIZE } else { usize::MAX });
        let socket = flood(500, SIZE, &name, limits).await;
        sleep(Duration::from_millis(100)).await;
        if closes {
            soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
        }
        drop(socket);
        let end = outcome(&format!("{name}-end")).await;
        assert_eq!(end, if closes { "normal: 1000" } else { "normal: no code" });
    }
}

#[wasm_bindgen_test]
async fn a_message_over_the_limit_closes_with_4009() {
    let name = unique_name();
    let limits = Limits::default().message_size(1000);
    let address = url(format_args!("/hold?{name}"));
    let (mut socket, _) = soon(Connector::new().limits(limits).connect(address)).await.unwrap();
    connect(format_args!("/release?{name}")).await;
    // At the limit, messages are received.
    for (size, is_fine) in [(1000, true), (1001, false)] {
        let mut echo = connect("/echo").await;
        echo.send(vec![0; size]).await.unwrap();
        assert_eq!(next(&mut echo).await.len(), size);
        let limits = Limits::default().message_size(1000);
        let address = url("/echo");
        let (mut limited, _) = soon(Connector::new().limits(limits).connect(address)).await.unwrap();
        limited.send(vec![0; size]).await.unwrap();
        let result = soon(limited.recv()).await;
        assert_eq!(result.is_ok(), is_fine);
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Limit);
            assert!(error.to_string().contains("Limits::message_size"), "{error}");
        }
    }
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), None);
}
