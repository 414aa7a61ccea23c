//! JSON, protobuf, `Stream` and `Sink`.

use bowline::{CloseCode, ErrorKind};
use futures_util::{SinkExt, StreamExt, stream};
use serde::{Deserialize, Serialize};
use wasm_bindgen_test::wasm_bindgen_test;

use crate::support::{connect, error_of, soon};

#[derive(Serialize, Deserialize, Clone, PartialEq, prost::Message)]
struct Move {
    #[prost(string, tag = "1")]
    from: String,
    #[prost(string, tag = "2")]
    to: String,
}

fn opening() -> Move {
    Move { from: "e2".into(), to: "e4".into() }
}

#[wasm_bindgen_test]
async fn values_are_sent_and_received_as_json() {
    let mut socket = connect("/echo").await;
    socket.send_json(&opening()).await.unwrap();
    assert_eq!(soon(socket.recv_json()).await.unwrap(), Some(opening()));
    socket.sender().send_json("a string").await.unwrap();
    assert_eq!(error_of(soon(socket.recv_json::<Move>()).await).kind(), ErrorKind::InvalidData);
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    assert_eq!(soon(socket.recv_json::<Move>()).await.unwrap(), None);
}

#[wasm_bindgen_test]
async fn messages_of_protobuf_are_sent_and_received() {
    let mut socket = connect("/echo").await;
    socket.send_protobuf(&opening()).await.unwrap();
    assert_eq!(soon(socket.recv_protobuf()).await.unwrap(), Some(opening()));
    socket.sender().send_protobuf(&opening()).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap().map(|message| message.len()), Some(8));
}

#[wasm_bindgen_test]
async fn a_connection_is_a_stream_and_a_sink() {
    let (mut sink, mut messages) = connect("/echo").await.into_stream_sink().split();
    let mut news = stream::iter(["one", "two", "three"]).map(|text| Ok(text.into()));
    soon(sink.send_all(&mut news)).await.unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(soon(messages.next()).await.unwrap().unwrap(), text.into());
    }
    soon(sink.close()).await.unwrap();
    assert!(soon(messages.next()).await.is_none());
    assert!(soon(messages.next()).await.is_none());

    let socket = connect("/close/4004").await;
    let mut sink = socket.sender().into_sink();
    soon(sink.send("close".into())).await.unwrap();
    let items: Vec<_> = soon(socket.collect()).await;
    let [Err(error)] = &items[..] else { panic!("{items:?}") };
    assert_eq!(error.close_frame().unwrap().code(), CloseCode(4004));
}
