//! Subjects and messages as NATS carries them.
//!
//! A message has one header, `Bowline`, with its kind and its tag: `t` for text, `b` for binary, `m` for the
//! mark with which a history begins, and 16 hexadecimal digits. The name of a topic is one token of a
//! subject.
//!
//! A position has the number of its message in the stream as the offset, and the tag. The epoch is always the
//! same one: a stream that was created anew has the same numbers again, but not the same tags.

use std::fmt::Write as _;

use bowline_hub::bowline::bytes::Bytes;
use bowline_hub::bowline::{Message, Utf8Bytes};

/// The beginning of the subjects on which nodes receive messages.
pub(crate) const LIVE: &str = "bowline.live.";

/// The beginning of the subjects to which messages with history are published.
pub(crate) const STORE: &str = "bowline.store.";

/// The name of the stream that keeps all histories.
pub(crate) const STREAM: &str = "bowline";

/// The name of the stream that keeps who is present, and the beginnings of its subjects: see
/// [`presence`](crate::presence).
pub(crate) const PRESENCE: &str = "bowline-presence";
pub(crate) const PRESENT: &str = "bowline.present.";
pub(crate) const NODE: &str = "bowline.node.";
pub(crate) const LEASE: &str = "bowline.lease.";
pub(crate) const CLOCK: &str = "bowline.clock";

/// The beginning of the subjects on which nodes receive changes of presence.
pub(crate) const WHO: &str = "bowline.who.";

/// The beginning of the subjects on which the server tells what happens to a stream.
pub(crate) const ADVISORIES: &str = "$JS.EVENT.ADVISORY.STREAM.";

/// The epoch of all positions.
pub(crate) const EPOCH: u64 = 1;

/// The header of all messages.
pub(crate) const HEADER: &str = "Bowline";

/// Appends the name of a topic to a subject. Letters, digits, `-`, `_`, `/` and `:` stay as they are, and all
/// other bytes are escaped as in a URL.
pub(crate) fn subject(prefix: &str, topic: &str) -> String {
    let mut subject = String::with_capacity(prefix.len() + topic.len());
    subject.push_str(prefix);
    for byte in topic.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_/:".contains(&byte) {
            subject.push(char::from(byte));
        } else {
            write!(subject, "%{byte:02x}").expect("a string accepts everything");
        }
    }
    subject
}

/// Returns the name of the topic with a token, or `None` if no hub makes such a token.
pub(crate) fn topic(token: &str) -> Option<String> {
    let mut name = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            name.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            name.push(*first);
        }
    }
    String::from_utf8(name).ok()
}

/// The content of a message in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The beginning of a history, which no member receives.
    Mark,
    Message(Message),
}

/// Returns the value of the header of a mark.
pub(crate) fn mark(tag: u64) -> String {
    format!("m{tag:016x}")
}

/// Returns the value of the header of a message.
pub(crate) fn header(message: &Message, tag: u64) -> String {
    let kind = match message {
        Message::Text(_) => 't',
        Message::Binary(_) => 'b',
    };
    format!("{kind}{tag:016x}")
}

/// Returns the tag in the header of a message.
pub(crate) fn tag(header: &str) -> Option<u64> {
    u64::from_str_radix(header.get(1..)?, 16).ok()
}

/// Decodes a message, and its tag. Returns `None` for a message that no hub has published.
pub(crate) fn decode(header: &str, payload: &[u8]) -> Option<(Content, u64)> {
    let (kind, _) = header.split_at_checked(1)?;
    // A copy, as the memory of a read belongs to many messages.
    let payload = Bytes::copy_from_slice(payload);
    let content = match kind {
        "t" => Content::Message(Message::Text(Utf8Bytes::try_from(payload).ok()?)),
        "b" => Content::Message(Message::Binary(payload)),
        "m" => Content::Mark,
        _ => return None,
    };
    Some((content, tag(header)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_token_and_comes_back() {
        for name in ["chat/lobby", "a.b", "*", ">", "a b\r\n%", "größe", "%2e", ""] {
            let token = subject("", name);
            assert!(!token.contains(['.', '*', '>', ' ', '\r', '\n']), "{token}");
            assert_eq!(topic(&token).as_deref(), Some(name));
        }
        assert_eq!(subject(LIVE, "chat/a.b"), "bowline.live.chat/a%2eb");
        assert_eq!((topic("%2"), topic("%zz"), topic("%ff")), (None, None, None));
    }

    #[test]
    fn a_message_keeps_its_kind_and_tag() {
        for message in [Message::Text("hi".into()), Message::Binary(vec![0, 255].into())] {
            let decoded = decode(&header(&message, 99), message.as_bytes());
            assert_eq!(decoded, Some((Content::Message(message), 99)));
        }
        assert_eq!(decode(&mark(7), b""), Some((Content::Mark, 7)));
        assert_eq!(decode("t0000000000000001", b"\xff"), None);
        assert_eq!((decode("x01", b""), decode("", b""), decode("t", b"")), (None, None, None));
    }
}
