//! What the types promise by themselves.

use std::error::Error as StdError;

use bowline::{
    CloseCode, CloseFrame, Error, ErrorKind, Message, MessageKind, MessageReader, MessageWriter, Payload,
    Prepared, Sender, TrySendError, Utf8Bytes, WebSocket, pair,
};

fn is_send<T: Send>(_: &T) {}

fn is_shared<T: Send + Sync + 'static>() {}

fn is_shared_for_a_while<T: Send + Sync>() {}

#[test]
fn types_can_be_shared_between_threads() {
    is_shared::<WebSocket>();
    is_shared::<Sender>();
    is_shared::<MessageWriter>();
    is_shared::<Message>();
    is_shared::<Prepared>();
    is_shared::<Error>();
    is_shared::<CloseFrame>();
    is_shared_for_a_while::<MessageReader<'_>>();
    is_shared_for_a_while::<Payload<'_>>();
}

#[tokio::test]
async fn futures_can_be_spawned() {
    let (mut socket, _other) = pair();
    is_send(&socket.recv());
    is_send(&socket.reader());
    is_send(&socket.send("borrowed"));
    is_send(&socket.send(vec![1]));
    is_send(&socket.flush());
    is_send(&socket.ping());
    is_send(&socket.writer(MessageKind::Text));
    is_send(&socket.close(CloseCode::NORMAL, ""));
    is_send(&socket.sender().closed());
}

#[test]
fn text_is_text() {
    let text = Utf8Bytes::from("héllo");
    assert_eq!(text, "héllo");
    assert_eq!(text.len(), 6);
    assert_eq!(format!("{text} {text:?}"), "héllo \"héllo\"");
    assert!(Utf8Bytes::try_from(bytes::Bytes::from_static(&[0xFF])).is_err());
    let message = Message::from("héllo");
    assert_eq!((message.kind(), message.as_text(), message.len()), (MessageKind::Text, Some("héllo"), 6));
    let message = Message::from(vec![1, 2]);
    assert_eq!(
        (message.kind(), message.as_text(), message.as_bytes()),
        (MessageKind::Binary, None, &[1, 2][..])
    );
    assert!(Message::from("").is_empty());
}

#[tokio::test]
async fn errors_say_what_happened_and_do_not_repeat_their_source() {
    let (socket, _other) = pair();
    let error = socket.close(CloseCode(1005), "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "the close code 1005 may not be sent");
    assert!(error.source().is_none(), "{:?}", error.source());
    assert!(error.response().is_none() && error.close_frame().is_none());
    assert_eq!(error.clone().to_string(), error.to_string());
    assert_eq!(TrySendError::Full("message").into_inner(), "message");
}

#[test]
fn close_codes_have_names() {
    assert_eq!(CloseCode::from(1012), CloseCode::SERVICE_RESTART);
    assert_eq!(format!("{} {:?}", CloseCode::NORMAL, CloseCode::NORMAL), "1000 CloseCode(1000)");
    let frame = CloseFrame::new(CloseCode(4000), "reason").unwrap();
    assert_eq!(frame.to_string(), "4000 (reason)");
}
