//! Opening connections, and failing to.

use std::time::Duration;

use bowline::{Connector, ErrorKind, Limits};
use wasm_bindgen_test::wasm_bindgen_test;

use crate::support::{Console, connect, error_of, next, outcome, poll_once, sleep, soon, unique_name, url};

#[wasm_bindgen_test]
async fn the_server_chooses_the_subprotocol() {
    let connector = Connector::new().subprotocols(["chat.v1", "chat.v2"]);
    let (socket, response) = soon(connector.connect(url("/echo"))).await.unwrap();
    assert_eq!(socket.subprotocol(), Some("chat.v2"));
    assert_eq!(socket.sender().subprotocol(), Some("chat.v2"));
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat.v2");

    let (socket, response) = soon(Connector::new().connect(url("/echo"))).await.unwrap();
    assert_eq!(socket.subprotocol(), None);
    assert!(!response.headers().contains_key("sec-websocket-protocol"));
}

#[wasm_bindgen_test]
async fn a_refused_connection_fails_in_words_on_what_browsers_hide() {
    // Nothing listens on the first, and the server answers the second with 403.
    for url in ["ws://127.0.0.1:9".to_owned(), url("/refuse")] {
        let error = error_of(soon(bowline::connect(url)).await);
        assert_eq!(error.kind(), ErrorKind::Disconnected);
        assert!(error.to_string().contains("browsers don't tell"), "{error}");
    }
}

#[wasm_bindgen_test]
async fn a_silent_server_is_given_up_after_the_handshake_timeout() {
    for milliseconds in [200, 1000, 5000] {
        let limits = Limits::default().handshake_timeout(Duration::from_millis(milliseconds));
        let name = unique_name();
        let url = url(format_args!("/silent?{name}"));
        let error = error_of(soon(Connector::new().limits(limits).connect(url)).await);
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("Limits::handshake_timeout"), "{error}");
        if soon(was_left(&name)).await {
            return;
        }
    }
    panic!("no request has reached the server");
}

/// Returns whether `/silent` was asked under this name. If so, its client has left.
///
/// While a browser waits for the answer, it opens no other connection to that server (RFC 6455 4.1).
async fn was_left(name: &str) -> bool {
    let mut socket = connect(format_args!("/peek?{name}")).await;
    let was_asked = next(&mut socket).await != "nothing".into();
    while was_asked && outcome(name).await != "gone" {
        sleep(Duration::from_millis(5)).await;
    }
    was_asked
}

#[wasm_bindgen_test]
async fn an_invalid_url_and_invalid_options_are_refused_before_anything_is_sent() {
    for url in ["ftp://127.0.0.1/", "ws://127.0.0.1/#fragment", "ws://127.0.0.1:99999/", "ws://[/"] {
        let error = error_of(soon(bowline::connect(url)).await);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    for subprotocols in [["two words", "a"], ["a", "a"]] {
        let connector = Connector::new().subprotocols(subprotocols);
        let error = error_of(soon(connector.connect(url("/echo"))).await);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let day = Duration::from_secs(24 * 60 * 60);
    for (limits, text) in [
        (Limits::default().write_buffer(0), "Limits::write_buffer is 0, but has to be at least 1"),
        (Limits::default().unread(9), "Limits::unread is 9, but has to be at least Limits::message_size"),
        (
            Limits::default().close_timeout(25 * day),
            "Limits::close_timeout is 2160000 s, but may be at most 24 days",
        ),
    ] {
        let error = error_of(soon(Connector::new().limits(limits).connect(url("/echo"))).await);
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::InvalidInput, text));
    }
}

#[wasm_bindgen_test]
fn the_default_limits_are_those_of_the_table() {
    let limits = Limits::default();
    assert_eq!((limits.message_size, limits.unread, limits.write_buffer), (1 << 20, 16 << 20, 64 << 10));
    let (handshake, close) = (Duration::from_secs(10), Duration::from_secs(5));
    assert_eq!((limits.handshake_timeout, limits.close_timeout), (handshake, close));
}

#[wasm_bindgen_test]
async fn the_drop_of_connect_closes_the_connection() {
    for milliseconds in [200, 1000, 5000] {
        let name = unique_name();
        let mut connecting = Box::pin(bowline::connect(url(format_args!("/silent?{name}"))));
        assert!(poll_once(&mut connecting).is_pending());
        sleep(Duration::from_millis(milliseconds)).await;
        drop(connecting);
        if soon(was_left(&name)).await {
            return;
        }
    }
    panic!("no request has reached the server");
}

#[wasm_bindgen_test]
async fn the_drop_of_connect_is_silent_whenever_it_happens() {
    let console = Console::watch();
    for milliseconds in [0, 1, 2, 5, 10, 20] {
        let mut connecting = Box::pin(bowline::connect(url("/echo")));
        assert!(poll_once(&mut connecting).is_pending());
        sleep(Duration::from_millis(milliseconds)).await;
        drop(connecting);
    }
    // The events of the dropped ones would come now.
    let mut socket = connect("/echo").await;
    socket.send("still here").await.unwrap();
    assert_eq!(next(&mut socket).await, "still here".into());
    for path in ["/refuse", "/silent"] {
        let limits = Limits::default().handshake_timeout(Duration::from_millis(50));
        assert!(soon(Connector::new().limits(limits).connect(url(path))).await.is_err());
    }
    sleep(Duration::from_millis(200)).await;
    console.assert_silent();
}
