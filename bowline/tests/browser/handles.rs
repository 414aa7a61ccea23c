//! Handles and futures, as other code needs them.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use bowline::{CloseCode, Connector, Error, Message, Role, Sender, WebSocket};
use wasm_bindgen_test::wasm_bindgen_test;

use crate::support::connect;

fn is_send<T: Send>(_: &T) {}

fn is_send_and_sync<T: Send + Sync + 'static>() {}

/// Compiles if the handles fit into code for native clients.
#[expect(dead_code, reason = "it is compiled")]
fn handles_and_futures_are_send(mut socket: WebSocket, sender: &Sender, connector: &Connector) {
    is_send_and_sync::<WebSocket>();
    is_send_and_sync::<Sender>();
    is_send_and_sync::<Connector>();
    is_send_and_sync::<Message>();
    is_send_and_sync::<Error>();
    is_send(&bowline::connect("ws://127.0.0.1"));
    is_send(&connector.connect("ws://127.0.0.1"));
    is_send(&socket.send("text"));
    is_send(&socket.send_json("text"));
    is_send(&socket.send_protobuf(&String::new()));
    is_send(&socket.flush());
    is_send(&socket.close(CloseCode::NORMAL, ""));
    is_send(&socket.closed());
    is_send(&socket.recv());
    is_send(&socket.recv_json::<String>());
    is_send(&socket.recv_protobuf::<String>());
    is_send(&sender.send("text"));
    is_send(&sender.close(CloseCode::NORMAL, ""));
    is_send(&sender.clone().into_sink());
    is_send(&socket.into_stream_sink());
}

#[wasm_bindgen_test]
async fn senders_of_one_connection_are_equal() {
    let (first, second) = (connect("/echo").await, connect("/echo").await);
    let state = RandomState::new();
    let hashes: HashSet<_> = [&first, &second, &first].map(|socket| state.hash_one(socket.sender())).into();
    assert_eq!(hashes.len(), 2);
    assert!(first.sender() == first.sender() && first.sender() != second.sender());
    assert_eq!((first.role(), first.sender().role()), (Role::Client, Role::Client));
    assert_eq!(format!("{first:?} {:?}", first.sender()), "WebSocket { .. } Sender { .. }");
}
