//! Messages, there and back.

use bowline::{CloseCode, Message, Prepared};
use wasm_bindgen_test::wasm_bindgen_test;

use crate::support::{connect, next};

#[wasm_bindgen_test]
async fn messages_of_all_kinds_come_back() {
    let mut socket = connect("/echo").await;
    let megabyte: Vec<u8> = (0..=250).cycle().take(1024 * 1024).collect();
    for message in [
        Message::from("hello"),
        Message::from(""),
        Message::from("caf\u{e9} \u{1f980} \0"),
        Message::from(&[0, 255, 128]),
        Message::from(Vec::new()),
        Message::from("\u{1f980}".repeat(1024 * 1024 / 4)),
        Message::from(megabyte),
    ] {
        socket.send(message.clone()).await.unwrap();
        let answer = next(&mut socket).await;
        assert!(answer == message, "{} bytes came back for {}", answer.len(), message.len());
    }
    let answer = socket.close(CloseCode::NORMAL, "done").await.unwrap();
    assert_eq!(answer.code(), CloseCode::NORMAL);
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.recv().await.unwrap(), None);
}

#[wasm_bindgen_test]
async fn payloads_of_all_types_are_sent() {
    let mut socket = connect("/echo").await;
    let (string, bytes) = ("a".to_owned(), vec![1, 2]);
    socket.send("a").await.unwrap();
    socket.send(&string).await.unwrap();
    socket.send(string).await.unwrap();
    socket.send(&Prepared::new("a")).await.unwrap();
    for _ in 0..4 {
        assert_eq!(next(&mut socket).await, "a".into());
    }
    socket.send(&bytes).await.unwrap();
    socket.send(&bytes[..]).await.unwrap();
    socket.send(bytes).await.unwrap();
    socket.send(&[1, 2]).await.unwrap();
    for _ in 0..4 {
        assert_eq!(next(&mut socket).await, (&[1, 2]).into());
    }
}

#[wasm_bindgen_test]
async fn a_hundred_sockets_are_open_at_once() {
    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push(connect("/echo").await);
    }
    for (number, socket) in sockets.iter().enumerate() {
        socket.send(format!("{number}")).await.unwrap();
    }
    // Some leave from the middle.
    sockets.retain_mut(|_| js_sys::Math::random() < 0.8);
    for socket in &mut sockets {
        socket.send("again").await.unwrap();
        next(socket).await;
        assert_eq!(next(socket).await, "again".into());
    }
}
