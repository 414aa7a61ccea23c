//! The promises of the types themselves.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error as StdError;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use bowline::{
    Adoption, CloseCode, CloseFrame, Error, ErrorKind, Limits, Message, MessageKind, MessageReader,
    MessageWriter, Misuse, Payload, Prepared, Role, Sender, TrySendError, Utf8Bytes, WebSocket, pair,
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
    is_send(&socket.closed());
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

/// Compares two values in both directions.
fn are_equal<A: PartialEq<B> + ?Sized, B: PartialEq<A> + ?Sized>(one: &A, other: &B) -> bool {
    let result = one == other;
    assert_eq!(result, other == one);
    result
}

#[test]
fn text_converts_into_what_holds_text() {
    for text in ["", "héllo"] {
        let shared = Utf8Bytes::from(text);
        assert_eq!(String::from(shared.clone()), text);
        assert_eq!(String::from(shared), text);
        assert_eq!(String::from(Utf8Bytes::from_static(text)), text);
        let shared = Utf8Bytes::from(text);
        assert!(
            are_equal(&shared, text) && are_equal(&shared, &text) && are_equal(&shared, &text.to_owned())
        );
        assert!(!are_equal(&shared, "other") && !are_equal(&shared, &"other".to_owned()));
        assert_eq!(Utf8Bytes::try_from(text.as_bytes()).unwrap(), text);
        assert_eq!(Utf8Bytes::try_from(text.as_bytes().to_vec()).unwrap(), text);
    }
    assert!(Utf8Bytes::try_from(vec![b'a', 0xFF]).is_err());
    assert!(Utf8Bytes::try_from(&b"\xC3"[..]).is_err());
    // Memory that nothing else refers to changes its owner.
    let text = "long enough to be on the heap".to_owned();
    let address = text.as_ptr();
    let text = String::from(Utf8Bytes::from(text));
    assert_eq!(text.as_ptr(), address);
}

#[test]
fn a_message_becomes_its_text_if_it_is_text() {
    assert_eq!(Message::from("héllo").into_text().unwrap(), "héllo");
    let error = Message::from(b"abc").into_text().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(error.to_string(), "a text message was expected, but 3 bytes of binary data arrived");
}

/// A message, a payload and a prepared message accept the same types.
#[tokio::test]
async fn all_that_can_be_sent_can_be_a_message_and_be_prepared() {
    let (client, mut server) = pair();
    macro_rules! assert_accepted {
        ($kind:ident: $($value:expr),*) => {
            $(
                let expected = Message::from($value);
                assert_eq!((expected.kind(), expected.as_bytes()), (MessageKind::$kind, &b"abc"[..]));
                client.send($value).await.unwrap();
                client.send(&Prepared::new($value)).await.unwrap();
                client.send(&Prepared::new(&Prepared::new($value))).await.unwrap();
                client.send(&Prepared::new(Message::from($value))).await.unwrap();
                for _ in 0..4 {
                    assert_eq!(server.recv().await.unwrap().as_ref(), Some(&expected));
                }
            )*
        };
    }
    assert_accepted!(Text: "abc", &"abc".to_owned(), "abc".to_owned(), Utf8Bytes::from_static("abc"));
    assert_accepted!(Binary: b"abc", &b"abc"[..], &b"abc".to_vec(), b"abc".to_vec());
    assert_accepted!(Binary: bytes::Bytes::from_static(b"abc"));
}

/// Asserts the contract of `Borrow`: the owned value and the borrowed one are equal, ordered and hashed
/// alike.
fn assert_borrows_alike<B: Hash + Ord + ?Sized>(values: &[impl Borrow<B> + Hash + Ord]) {
    let state = RandomState::new();
    for one in values {
        assert_eq!(state.hash_one(one), state.hash_one(one.borrow()));
        for other in values {
            assert_eq!(one == other, one.borrow() == other.borrow());
            assert_eq!(one.cmp(other), one.borrow().cmp(other.borrow()));
            assert_eq!(one.partial_cmp(other), Some(one.cmp(other)));
        }
    }
}

#[test]
fn text_is_found_by_a_str() {
    let words = ["", "a", "ab", "b", "Z", "é", "z", "€", "\u{FFFF}", "😀", "a\0", "a\u{FF}"];
    let texts = words.map(Utf8Bytes::from);
    assert_borrows_alike::<str>(&texts);
    let hashed: HashMap<Utf8Bytes, usize> = texts.iter().cloned().zip(0..).collect();
    let sorted: BTreeMap<Utf8Bytes, usize> = texts.iter().cloned().zip(0..).collect();
    let set: HashSet<Utf8Bytes> = texts.iter().cloned().collect();
    for (number, word) in words.iter().enumerate() {
        assert_eq!(hashed.get(*word), Some(&number), "{word:?}");
        assert_eq!(sorted.get(*word), Some(&number), "{word:?}");
        assert!(set.contains(*word), "{word:?}");
        assert_eq!(&*texts[number], *word);
        assert_eq!(AsRef::<[u8]>::as_ref(&texts[number]), word.as_bytes());
    }
    assert_eq!(hashed.get("absent"), None);
}

#[test]
fn equal_values_have_equal_hashes() {
    let state = RandomState::new();
    let text = bytes::Bytes::from("hello".to_owned());
    // Equal, from memory of different kinds.
    let texts = [
        Message::from("hello"),
        Message::from("hello".to_owned()),
        Message::Text(Utf8Bytes::from_static("hello")),
        Message::Text(Utf8Bytes::try_from(text.clone()).unwrap()),
    ];
    for message in &texts {
        assert_eq!(message, &texts[0]);
        assert_eq!(state.hash_one(message), state.hash_one(&texts[0]));
        assert_ne!(message, &Message::from(text.clone()), "text is not bytes");
    }
    assert_ne!(state.hash_one(&texts[0]), state.hash_one(Message::from(text)));
    assert_borrows_alike::<CloseCode>(&[1000, 1001, 4999].map(CloseCode));
    assert_eq!(HashSet::from([MessageKind::Text, MessageKind::Binary, MessageKind::Text]).len(), 2);
    assert_eq!(HashSet::from([ErrorKind::Io, ErrorKind::Limit, ErrorKind::Io]).len(), 2);
}

#[expect(clippy::mutable_key_type, reason = "hashing reads nothing that can change")]
#[tokio::test]
async fn senders_are_equal_if_they_belong_to_one_connection() {
    let sockets: Vec<WebSocket> = (0..10).flat_map(|_| <[_; 2]>::from(pair())).collect();
    let state = RandomState::new();
    for (number, socket) in sockets.iter().enumerate() {
        let sender = socket.sender();
        for (other_number, other) in sockets.iter().enumerate() {
            let same = number == other_number;
            for other in [other.sender(), other.sender().clone(), Sender::from(other)] {
                assert_eq!(sender == other, same);
                assert_eq!(other == sender, same);
                assert!(!same || state.hash_one(&sender) == state.hash_one(&other));
            }
        }
    }
    let members: HashSet<Sender> = sockets.iter().chain(&sockets).map(WebSocket::sender).collect();
    assert_eq!(members.len(), sockets.len());
    // A connection that has ended is still the same.
    let sender = sockets[0].sender();
    drop(sockets);
    sender.closed().await;
    assert!(members.contains(&sender));
}

#[tokio::test]
async fn a_sender_knows_what_its_websocket_knows() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    let client =
        bowline::Connector::new().adopt(client.unwrap(), Adoption::new().subprotocol("chat")).unwrap();
    let server =
        bowline::Acceptor::new().adopt(server.unwrap().0, Adoption::new().subprotocol("chat")).unwrap();
    for (socket, role) in [(&client, Role::Client), (&server, Role::Server)] {
        let sender = socket.sender();
        assert_eq!((sender.subprotocol(), socket.subprotocol()), (Some("chat"), Some("chat")));
        assert_eq!((sender.role(), socket.role()), (role, role));
        assert_eq!((sender.peer_addr(), sender.local_addr()), (socket.peer_addr(), socket.local_addr()));
        assert!(sender.peer_addr().is_some() && sender.peer_addr() != sender.local_addr());
    }
    assert_eq!(client.sender().peer_addr(), Some(address));
    let (client, _server) = pair();
    assert_eq!((client.sender().subprotocol(), client.sender().peer_addr()), (None, None));
}

#[tokio::test]
async fn a_websocket_waits_until_it_can_send_no_more() {
    let (mut client, server) = pair();
    assert!(!client.is_closed() && !server.is_closed());
    server.send("last words").await.unwrap();
    let closing = tokio::spawn(async move { server.close(CloseCode::NORMAL, "").await });
    assert_eq!(client.recv().await.unwrap(), Some("last words".into()));
    client.closed().await;
    assert!(client.is_closed() && client.sender().is_closed());
    assert_eq!(client.recv().await.unwrap(), None);
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn errors_say_what_happened_and_do_not_repeat_their_source() {
    let (socket, _other) = pair();
    let error = socket.close(CloseCode(1006), "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "the close code 1006 may not be sent");
    assert!(error.source().is_none(), "{:?}", error.source());
    assert!(error.response().is_none() && error.close_frame().is_none());
    assert_eq!(error.clone().to_string(), error.to_string());
    assert_eq!(TrySendError::Full("message").into_inner(), "message");
}

#[test]
fn kinds_of_errors_have_labels() {
    let kinds = [
        (ErrorKind::Closed, "connection closed"),
        (ErrorKind::Disconnected, "connection lost"),
        (ErrorKind::Protocol, "protocol violation"),
        (ErrorKind::Limit, "limit exceeded"),
        (ErrorKind::Timeout, "timed out"),
        (ErrorKind::Handshake, "handshake failed"),
        (ErrorKind::Io, "I/O error"),
        (ErrorKind::InvalidInput, "invalid input"),
        (ErrorKind::InvalidData, "invalid data"),
    ];
    for (kind, label) in kinds {
        assert_eq!(kind.to_string(), label);
    }
    assert_eq!(format!("{:>12}|", ErrorKind::Timeout), "   timed out|");
}

#[test]
fn a_close_frame_that_may_not_be_sent_is_an_error_of_the_library() {
    fn checked(code: CloseCode, reason: &str) -> Result<CloseFrame, Error> {
        Ok(CloseFrame::new(code, reason)?)
    }
    assert_eq!(checked(CloseCode(4000), "reason").unwrap().reason(), "reason");
    let error = checked(CloseCode::ABNORMAL, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), Misuse::ReservedCloseCode(1006).to_string());
}

#[test]
fn limits_can_be_read_and_compared() {
    let defaults = Limits::default();
    assert_eq!(defaults, Limits::default());
    assert_eq!((defaults.message_size, defaults.frames_per_message), (1024 * 1024, 16_384));
    assert_eq!((defaults.head_size, defaults.max_headers, defaults.write_buffer), (16_384, 100, 65_536));
    assert_eq!((defaults.handshake_timeout.as_secs(), defaults.close_timeout.as_secs()), (10, 5));
    assert_eq!(defaults.unsent, None);
    #[cfg(feature = "http2")]
    assert_eq!((defaults.max_streams, defaults.stream_window), (100, 256 * 1024));

    macro_rules! assert_setting {
        ($($name:ident = $value:expr;)*) => {$(
            let limits = Limits::default().$name($value);
            assert_eq!(limits.$name, $value);
            assert_ne!(limits, defaults);
            assert_eq!(limits.$name(defaults.$name), defaults, "nothing else has changed");
        )*};
    }
    assert_setting! {
        message_size = 1;
        frames_per_message = 2;
        head_size = 9000;
        max_headers = 3;
        handshake_timeout = Duration::from_secs(1);
        close_timeout = Duration::from_secs(2);
        write_buffer = 4;
    }
    #[cfg(feature = "http2")]
    assert_setting! {
        max_streams = 5;
        stream_window = 100_000;
    }
}

#[tokio::test]
async fn errors_escape_what_the_peer_says() {
    for swap in [false, true] {
        let (mut near, mut far) = pair();
        if swap {
            std::mem::swap(&mut near, &mut far);
        }
        let reason = "x\r\nFAKE LOG LINE\u{1b}[2J\u{202e}";
        let closing = tokio::spawn(async move { far.close(CloseCode(4000), reason).await });
        let received = near.recv().await.unwrap_err();
        let sent = near.send("late").await.unwrap_err();
        for error in [received, sent] {
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(text.contains(r"x\r\nFAKE LOG LINE\u{1b}[2J\u{202e}"), "{text}");
                assert!(!text.contains(char::is_control), "{text}");
            }
            assert_eq!(error.close_frame().unwrap().reason(), reason);
        }
        closing.await.unwrap().unwrap();
    }
}

#[cfg(feature = "server")]
#[test]
fn a_rejection_is_shown_in_one_line() {
    let body = "it's no \"such\" room:\r\nFAKE\u{1b}[2J\n".to_owned();
    let response = http::Response::builder().status(404).header("set-cookie", "a=secret").body(body).unwrap();
    let rejection = bowline::Rejection::from(response);
    assert_eq!(rejection.to_string(), r#"404 Not Found: it's no "such" room:\r\nFAKE\u{1b}[2J"#);
    assert!(!format!("{rejection:?}").contains("secret"), "{rejection:?}");
    assert_eq!(bowline::Rejection::from(http::StatusCode::NOT_FOUND).to_string(), "404 Not Found");
}

#[test]
fn close_codes_have_names() {
    assert_eq!(CloseCode::from(1012), CloseCode::SERVICE_RESTART);
    assert_eq!(format!("{} {:?}", CloseCode::NORMAL, CloseCode::NORMAL), "1000 CloseCode(1000)");
    let frame = CloseFrame::new(CloseCode(4000), "reason").unwrap();
    assert_eq!(frame.to_string(), "4000 (reason)");
}
