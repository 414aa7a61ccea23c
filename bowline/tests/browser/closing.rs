//! Ends of connections, from both sides.

use std::time::Duration;

use bowline::{CloseCode, Connector, Error, ErrorKind, Limits};
use wasm_bindgen_futures::spawn_local;
use wasm_bindgen_test::wasm_bindgen_test;

use crate::support::{Console, connect, error_of, next, outcome, poll_once, soon, unique_name, url};

#[wasm_bindgen_test]
async fn our_close_frame_reaches_the_server_and_its_answer_is_returned() {
    for (code, reason, recorded) in [
        (CloseCode::NORMAL, "done", "normal: 1000 (done)"),
        (CloseCode(3000), "", "connection closed: 3000"),
        (CloseCode(4999), "caf\u{e9}", "connection closed: 4999 (caf\u{e9})"),
        (CloseCode::NO_STATUS, "", "normal: no code"),
    ] {
        let name = unique_name();
        let mut socket = connect(format_args!("/record?{name}")).await;
        let answer = soon(socket.close(code, reason)).await.unwrap();
        assert_eq!(answer.code(), code);
        assert_eq!(outcome(&name).await, recorded);
        assert_eq!(socket.close_frame().unwrap().code(), code);
        // Ours was first, so this is a normal end, whatever the code.
        assert_eq!(socket.recv().await.unwrap(), None);
        assert!(socket.is_closed());
        assert_eq!(error_of(socket.send("late").await).kind(), ErrorKind::Closed);
        // It may be called again, and returns the same.
        assert_eq!(soon(socket.close(CloseCode::NORMAL, "")).await.unwrap().code(), code);
    }
}

#[wasm_bindgen_test]
async fn the_close_frame_of_the_server_decides_how_recv_ends() {
    for code in [1000, 1001] {
        let mut socket = connect(format_args!("/close/{code}")).await;
        socket.send("close").await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), None);
        let frame = socket.close_frame().unwrap();
        assert_eq!((frame.code(), frame.reason()), (CloseCode(code), "enough"));
    }
    for code in [1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999] {
        let mut socket = connect(format_args!("/close/{code}")).await;
        socket.send("close").await.unwrap();
        for _ in 0..2 {
            let error = error_of(soon(socket.recv()).await);
            assert_eq!(error.kind(), ErrorKind::Closed);
            assert_eq!(error.close_frame().unwrap().code(), CloseCode(code));
            assert!(error.to_string().contains("enough"), "{error}");
        }
        let error = error_of(socket.send("late").await);
        assert_eq!(error.close_frame().unwrap().code(), CloseCode(code));
        soon(socket.closed()).await;
    }
}

#[wasm_bindgen_test]
async fn an_end_without_a_close_frame_is_reported_as_a_lost_connection() {
    let mut socket = connect("/drop").await;
    assert_eq!(next(&mut socket).await, "the last message".into());
    let error = error_of(soon(socket.recv()).await);
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(error.to_string().contains("without a Close frame"), "{error}");
    assert_eq!(socket.close_frame(), None);
    assert_eq!(error_of(soon(socket.close(CloseCode::NORMAL, "")).await).kind(), ErrorKind::Disconnected);
}

#[wasm_bindgen_test]
async fn what_browsers_do_not_send_is_refused_and_nothing_is_sent() {
    let mut socket = connect("/echo").await;
    let long = "x".repeat(124);
    for (code, reason) in [
        (1001, ""),
        (1004, ""),
        (1006, ""),
        (1011, "oops"),
        (1015, ""),
        (2999, ""),
        (5000, ""),
        (0, ""),
        (1005, "a reason"),
        (1000, &*long),
    ] {
        let error = error_of(soon(socket.close(CloseCode(code), reason)).await);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{code}");
        assert!(socket.sender().begin_close(CloseCode(code), reason).is_err());
    }
    assert!(!socket.is_closed());
    socket.send("still here").await.unwrap();
    assert_eq!(next(&mut socket).await, "still here".into());
    soon(socket.close(CloseCode::NORMAL, &"x".repeat(123))).await.unwrap();
}

#[wasm_bindgen_test]
async fn messages_that_had_arrived_are_received_after_our_close() {
    let mut socket = connect("/echo").await;
    socket.send("first").await.unwrap();
    socket.send("second").await.unwrap();
    assert_eq!(next(&mut socket).await, "first".into());
    // The second has arrived by the time at which the third has come back.
    let sender = socket.sender();
    crate::support::sleep(Duration::from_millis(200)).await;
    soon(sender.close(CloseCode::NORMAL, "")).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some("second".into()));
    assert_eq!(socket.recv().await.unwrap(), None);
}

#[wasm_bindgen_test]
async fn close_ends_at_the_close_timeout() {
    let limits = Limits::default().close_timeout(Duration::from_millis(300));
    let name = unique_name();
    let url = url(format_args!("/hold?{name}"));
    let (mut socket, _) = soon(Connector::new().limits(limits).connect(url)).await.unwrap();
    // The server does not look at our Close frame before it has received this message.
    socket.send("unread").await.unwrap();
    let error = error_of(soon(socket.close(CloseCode::NORMAL, "")).await);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("Limits::close_timeout"), "{error}");
    assert_eq!(soon(socket.recv()).await.unwrap(), None);
    connect(format_args!("/release?{name}")).await;
}

#[wasm_bindgen_test]
async fn close_goes_on_if_its_future_is_dropped() {
    let name = unique_name();
    let mut socket = connect(format_args!("/record?{name}")).await;
    let mut closing = Box::pin(socket.close(CloseCode(4001), "bye"));
    assert!(poll_once(&mut closing).is_pending());
    drop(closing);
    assert_eq!(soon(socket.recv()).await.unwrap(), None);
    assert_eq!(outcome(&name).await, "connection closed: 4001 (bye)");
}

#[wasm_bindgen_test]
async fn the_drop_closes_without_a_code_and_what_was_sent_arrives() {
    let name = unique_name();
    let socket = connect(format_args!("/record?{name}")).await;
    let sender = socket.sender();
    socket.send(vec![1; 1000]).await.unwrap();
    drop(socket);
    assert_eq!(outcome(&name).await, "normal: no code");
    assert!(sender.is_closed());
    soon(sender.closed()).await;
    let error = error_of(sender.send("late").await);
    assert_eq!((error.kind(), error.to_string().contains("dropped")), (ErrorKind::Closed, true));
    assert_eq!(error_of(soon(sender.close(CloseCode::NORMAL, "")).await).kind(), ErrorKind::Closed);
}

#[wasm_bindgen_test]
async fn the_drop_does_not_disturb_a_close_that_has_begun() {
    let socket = connect("/echo").await;
    let sender = socket.sender();
    sender.begin_close(CloseCode(4002), "").unwrap();
    drop(socket);
    assert_eq!(soon(sender.close(CloseCode::NORMAL, "")).await.unwrap().code(), CloseCode(4002));
}

#[wasm_bindgen_test]
async fn the_drop_is_silent_while_messages_arrive() {
    let console = Console::watch();
    for _ in 0..10 {
        let mut socket = connect("/flood/1000/1000").await;
        next(&mut socket).await;
        socket.send("unread").await.unwrap();
        drop(socket);
    }
    let mut socket = connect("/flood/1000/1000").await;
    next(&mut socket).await;
    socket.sender().begin_close(CloseCode::NORMAL, "").unwrap();
    drop(socket);
    crate::support::sleep(Duration::from_millis(200)).await;
    console.assert_silent();
}

#[wasm_bindgen_test]
async fn an_end_wakes_all_who_wait() {
    let mut socket = connect("/close/4003").await;
    let sender = socket.sender();
    let (report, reports) = futures_channel();
    for _ in 0..3 {
        let (sender, report) = (sender.clone(), report.clone());
        spawn_local(async move {
            sender.closed().await;
            report(Ok(()));
        });
    }
    socket.send("close").await.unwrap();
    assert_eq!(error_of(soon(socket.recv()).await).close_frame().unwrap().code(), CloseCode(4003));
    crate::support::sleep(Duration::from_millis(50)).await;
    assert_eq!(reports(), 3);
}

/// Returns a function that counts results, and one that returns the count.
fn futures_channel() -> (impl Fn(Result<(), Error>) + Clone + 'static, impl Fn() -> usize) {
    let count = std::rc::Rc::new(std::cell::Cell::new(0));
    let counter = std::rc::Rc::clone(&count);
    (
        move |result: Result<(), Error>| {
            result.unwrap();
            counter.set(counter.get() + 1);
        },
        move || count.get(),
    )
}
