//! Foreign code that calls back, and servers without measure.

use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bowline::{CloseCode, Connector, Error, ErrorKind, Limits, WebSocket};
use wasm_bindgen::externref_heap_live_count;
use wasm_bindgen_test::wasm_bindgen_test;

use crate::back_pressure::{assert_sum, fill};
use crate::support::{
    Console, connect, error_of, has_streams, next, outcome, poll_once, sleep, soon, unique_name, url,
};

type Connecting = Pin<Box<dyn Future<Output = Result<WebSocket, Error>> + Send>>;

/// A waker that at once drops what it was given, and opens another connection.
#[derive(Default)]
struct Replacement {
    dropped: Mutex<Option<Box<dyn Any + Send>>>,
    opened: Mutex<Option<Connecting>>,
}

impl Replacement {
    fn poll<F: Future + ?Sized>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }

    fn of(self: &Arc<Self>, dropped: impl Any + Send) {
        *self.dropped.lock().unwrap() = Some(Box::new(dropped));
    }

    /// Waits until the waker was called, and uses the other connection.
    async fn assert_works(&self) {
        let opened = loop {
            if let Some(opened) = self.opened.lock().unwrap().take() {
                break opened;
            }
            sleep(Duration::from_millis(5)).await;
        };
        let mut socket = soon(opened).await.unwrap();
        socket.send("in its place").await.unwrap();
        assert_eq!(next(&mut socket).await, "in its place".into());
        soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    }
}

impl Wake for Replacement {
    fn wake(self: Arc<Self>) {
        let dropped = self.dropped.lock().unwrap().take();
        if dropped.is_some() {
            drop(dropped);
            let mut opened: Connecting = Box::pin(bowline::connect(url("/echo")));
            assert!(poll_once(&mut opened).is_pending());
            *self.opened.lock().unwrap() = Some(opened);
        }
    }
}

#[wasm_bindgen_test]
async fn a_waker_may_drop_its_connection_and_open_another() {
    let console = Console::watch();
    // The peer closes, is lost, and sends a message.
    for path in ["/close/4003", "/close/1000", "/drop", "/echo"] {
        let mut socket = connect(path).await;
        if path == "/drop" {
            next(&mut socket).await;
        }
        let replacement = Arc::new(Replacement::default());
        assert!(replacement.poll(Box::pin(socket.recv()).as_mut()).is_pending());
        // Chromium 156 ends a page that writes to a `WebSocketStream` while the server is lost.
        if path != "/drop" {
            socket.try_send("begin").unwrap();
        }
        replacement.of(socket);
        replacement.assert_works().await;
    }
    console.assert_silent();
}

#[wasm_bindgen_test]
async fn a_waker_may_drop_the_connect_whose_time_is_over() {
    let connector = Connector::new().limits(Limits::default().handshake_timeout(Duration::from_millis(100)));
    let mut connecting = Box::pin(async move { connector.connect(url("/silent")).await });
    let replacement = Arc::new(Replacement::default());
    assert!(replacement.poll(connecting.as_mut()).is_pending());
    replacement.of(connecting);
    replacement.assert_works().await;
}

#[wasm_bindgen_test]
async fn a_waker_may_drop_a_connection_that_exceeds_a_limit() {
    let name = unique_name();
    let connector = Connector::new().limits(Limits::default().message_size(1000));
    let (mut socket, _) = soon(connector.connect(url(format_args!("/flood/1/2000?{name}")))).await.unwrap();
    let replacement = Arc::new(Replacement::default());
    assert!(replacement.poll(Box::pin(socket.recv()).as_mut()).is_pending());
    replacement.of(socket);
    replacement.assert_works().await;
    // The drop does not replace the code by none.
    assert_eq!(outcome(&format!("{name}-end")).await, "connection closed: 4009 (too many bytes)");
}

#[wasm_bindgen_test]
async fn a_waker_may_drop_the_senders_that_wait() {
    let name = unique_name();
    let (socket, sent) = fill(&name).await;
    let replacement = Arc::new(Replacement::default());
    let [mut first, mut second] = [(); 2].map(|()| {
        let sender = socket.sender();
        Box::pin(async move { sender.send("dropped").await })
    });
    assert!(replacement.poll(first.as_mut()).is_pending());
    assert!(replacement.poll(second.as_mut()).is_pending());
    let mut third = Box::pin(socket.send("arrives"));
    assert!(poll_once(&mut third).is_pending());
    replacement.of((first, second));
    connect(format_args!("/release?{name}")).await;
    soon(third).await.unwrap();
    replacement.assert_works().await;
    assert_sum(socket, sent + "arrives".len()).await;
}

/// Returns the memory of the program in bytes, which never shrinks.
fn memory() -> usize {
    core::arch::wasm32::memory_size(0) * 64 * 1024
}

#[wasm_bindgen_test]
async fn a_message_over_the_limit_takes_no_memory() {
    for kind in ["flood/1", "text"] {
        let mut socket = connect(format_args!("/{kind}/{}", 64 * 1024 * 1024)).await;
        let before = memory();
        let error = error_of(soon(socket.recv()).await);
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(
            error.to_string(),
            "a message is larger than the limit of 1048576 bytes (raise it with Limits::message_size)"
        );
        assert!(memory() - before < 1024 * 1024, "{} bytes", memory() - before);
    }
}

#[wasm_bindgen_test]
async fn text_is_measured_as_utf_8() {
    // A character has three bytes, and is one unit of UTF-16.
    for (characters, is_fine) in [(333, true), (334, false)] {
        let connector = Connector::new().limits(Limits::default().message_size(1000));
        let (mut socket, _) = soon(connector.connect(url("/echo"))).await.unwrap();
        socket.send("\u{20ac}".repeat(characters)).await.unwrap();
        assert_eq!(soon(socket.recv()).await.is_ok(), is_fine);
    }
}

#[wasm_bindgen_test]
async fn connections_leave_nothing_behind() {
    let mut before = (0, 0);
    for round in 0..6 {
        for number in 0..100 {
            // `soon` leaves its timers behind.
            let mut socket = bowline::connect(url("/flood/3/1000")).await.unwrap();
            let sender = socket.sender();
            assert!(socket.recv().await.unwrap().is_some());
            if number % 3 == 0 {
                socket.close(CloseCode::NORMAL, "").await.unwrap();
            }
            drop(socket);
            assert!(sender.is_closed());
        }
        let now = (memory(), externref_heap_live_count());
        if round == 2 {
            before = now;
        }
        // The browser frees the closures of promises when it likes, and those are the closures of streams.
        let is_fine = has_streams() || now.0 <= before.0 && now.1 <= before.1 + 5;
        assert!(round < 2 || is_fine, "{before:?}, then {now:?}");
    }
}

#[wasm_bindgen_test]
async fn a_close_may_meet_its_timeout() {
    let console = Console::watch();
    for milliseconds in 0..12 {
        let limits = Limits::default().close_timeout(Duration::from_millis(milliseconds));
        let (mut socket, _) = soon(Connector::new().limits(limits).connect(url("/echo"))).await.unwrap();
        socket.send("text").await.unwrap();
        match soon(socket.close(CloseCode::NORMAL, "")).await {
            Ok(frame) => assert_eq!(frame.code(), CloseCode::NORMAL),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout),
        }
        while soon(socket.recv()).await.unwrap().is_some() {}
    }
    console.assert_silent();
}

#[wasm_bindgen_test]
async fn a_page_that_is_busy_does_not_miss_the_handshake() {
    let limits = Limits::default().handshake_timeout(Duration::from_secs(1));
    let connector = Connector::new().limits(limits);
    let mut connecting = Box::pin(connector.connect(url("/echo")));
    assert!(poll_once(&mut connecting).is_pending());
    let start = js_sys::Date::now();
    while js_sys::Date::now() - start < 2500.0 {}
    let (mut socket, _) = soon(connecting).await.unwrap();
    socket.send("late").await.unwrap();
    assert_eq!(next(&mut socket).await, "late".into());
}
