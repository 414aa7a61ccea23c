//! The protocol of NATS, as far as an engine speaks it.
//!
//! ```text
//!   server:  INFO {json}    MSG subject sid [reply] size    HMSG subject sid [reply] head size
//!            PING           PONG                            -ERR 'text'
//!   client:  CONNECT {json} PUB subject [reply] size        HPUB subject [reply] head size
//!            PING           PONG    SUB subject sid         UNSUB sid
//! ```
//!
//! Each operation is a line. A message has its bytes and another end of line after it: first the headers, if
//! there are any, and then the payload. Neither line nor message is read without a bound.

use std::error::Error as StdError;
use std::fmt;

/// The size of the longest line, in bytes. Only an `INFO` of a large cluster is longer than 4 KiB.
const MAX_LINE: usize = 64 * 1024;

/// The size of the largest message, in bytes: that which a server can be configured for.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// The first line of headers.
const VERSION: &[u8] = b"NATS/1.0";

/// An operation of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerOp<'a> {
    Info(&'a [u8]),
    Message(Incoming<'a>),
    Ping,
    Pong,
    Error(&'a str),
    /// An operation without a meaning for the engine.
    Other,
}

/// A message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incoming<'a> {
    pub(crate) subject: &'a str,
    /// The number of the subscription.
    pub(crate) sid: u64,
    /// The subject for an answer, or nothing.
    pub(crate) reply: &'a str,
    pub(crate) headers: Headers<'a>,
    pub(crate) payload: &'a [u8],
}

/// The headers of a message: the lines with their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers<'a>(pub(crate) &'a [u8]);

/// Bytes that are not an operation of a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server does not speak the protocol of NATS: {}", self.0)
    }
}

impl StdError for Malformed {}

impl<'a> Headers<'a> {
    /// Returns the value of a header, or `None` if there is none.
    pub(crate) fn value(self, name: &str) -> Option<&'a str> {
        self.0.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
            let (key, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            key.eq_ignore_ascii_case(name.as_bytes()).then(|| text(value).map(str::trim))?
        })
    }

    /// Returns the status of the first line, such as 503.
    pub(crate) fn status(self) -> Option<u16> {
        let line = self.0.split(|byte| *byte == b'\n').next()?.strip_prefix(VERSION)?;
        text(line)?.split_whitespace().next()?.parse().ok()
    }
}

/// Parses the first operation. Returns the operation and its size, or `None` if bytes are missing.
pub(crate) fn parse(input: &[u8]) -> Result<Option<(ServerOp<'_>, usize)>, Malformed> {
    let Some(end) = input.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
        return if input.len() < MAX_LINE { Ok(None) } else { Err(Malformed("a line does not end")) };
    };
    let after = end + 1;
    let line = text(&input[..end]).ok_or(Malformed("a line is not UTF-8"))?.trim_end();
    let (name, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let rest = rest.trim();
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
    let op = if is("MSG") || is("HMSG") {
        let kind = if is("MSG") { MessageKind::Plain } else { MessageKind::WithHeaders };
        let found = message(rest, &input[after..], kind)?;
        return Ok(found.map(|(incoming, size)| (ServerOp::Message(incoming), after + size)));
    } else if is("INFO") {
        ServerOp::Info(rest.as_bytes())
    } else if is("PING") {
        ServerOp::Ping
    } else if is("PONG") {
        ServerOp::Pong
    } else if is("-ERR") {
        ServerOp::Error(rest.trim_matches('\''))
    } else if is("+OK") {
        ServerOp::Other
    } else {
        return Err(Malformed("an operation is unknown"));
    };
    Ok(Some((op, after)))
}

/// The two operations that carry a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    Plain,
    WithHeaders,
}

/// Parses a message after its operation: `arguments` is the rest of the line.
fn message<'a>(
    arguments: &'a str,
    input: &'a [u8],
    kind: MessageKind,
) -> Result<Option<(Incoming<'a>, usize)>, Malformed> {
    let wrong = || Malformed("the arguments of a message are wrong");
    let mut words = arguments.split_ascii_whitespace();
    let subject = words.next().ok_or_else(wrong)?;
    let sid = words.next().and_then(|sid| sid.parse().ok()).ok_or_else(wrong)?;
    let rest = [words.next(), words.next(), words.next()];
    let (reply, sizes) = match (kind, rest) {
        (MessageKind::Plain, [Some(size), None, None]) => ("", ["0", size]),
        (MessageKind::Plain, [Some(reply), Some(size), None]) => (reply, ["0", size]),
        (MessageKind::WithHeaders, [Some(head), Some(size), None]) => ("", [head, size]),
        (MessageKind::WithHeaders, [Some(reply), Some(head), Some(size)]) => (reply, [head, size]),
        _ => return Err(wrong()),
    };
    let [head, size] = sizes.map(|size| size.parse::<usize>().ok());
    let (head, size) = head.zip(size).filter(|(head, size)| head <= size).ok_or_else(wrong)?;
    if size > MAX_MESSAGE {
        return Err(Malformed("a message is larger than any that a server accepts"));
    }
    let Some(body) = input.get(..size + 2) else { return Ok(None) };
    if !body.ends_with(b"\r\n") {
        return Err(Malformed("a message has another size"));
    }
    let (headers, payload) = body[..size].split_at(head);
    Ok(Some((Incoming { subject, sid, reply, headers: Headers(headers), payload }, size + 2)))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Appends the operation that publishes a message. `headers` are pairs of names and values.
pub(crate) fn publish(
    output: &mut Vec<u8>,
    subject: &str,
    reply: &str,
    headers: &[(&str, &str)],
    payload: &[u8],
) {
    let head = if headers.is_empty() { 0 } else { VERSION.len() + 4 };
    let head = head + headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
    output.extend_from_slice(if head == 0 { b"PUB " } else { b"HPUB " });
    output.extend_from_slice(subject.as_bytes());
    if !reply.is_empty() {
        output.push(b' ');
        output.extend_from_slice(reply.as_bytes());
    }
    let sizes = if head == 0 { String::new() } else { format!(" {head}") };
    output.extend_from_slice(format!("{sizes} {}\r\n", head + payload.len()).as_bytes());
    if head > 0 {
        output.extend_from_slice(VERSION);
        output.extend_from_slice(b"\r\n");
        for (name, value) in headers {
            output.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        output.extend_from_slice(b"\r\n");
    }
    output.extend_from_slice(payload);
    output.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: &[u8] = b"NATS/1.0\r\nBowline: t01\r\nNats-Sequence: 7\r\n\r\n";

    fn with_headers() -> Vec<u8> {
        let mut bytes = format!("HMSG a.b 3 {} {}\r\n", HEADERS.len(), HEADERS.len() + 2).into_bytes();
        bytes.extend_from_slice(HEADERS);
        bytes.extend_from_slice(b"hi\r\n");
        bytes
    }

    #[test]
    fn operations_are_parsed_however_the_bytes_are_split() {
        let mut input =
            b"INFO {\"a\": 1} \r\nPING\r\nMSG a.b 3 r.1 5\r\nhello\r\nMSG a 3 0\r\n\r\n-ERR 'no'\r\n"
                .to_vec();
        input.extend(with_headers());
        let (mut at, mut seen) = (0, Vec::new());
        for end in 0..=input.len() {
            while let Some((op, size)) = parse(&input[at..end]).unwrap() {
                seen.push(op);
                at += size;
            }
        }
        assert_eq!(at, input.len());
        let plain = |subject, reply, payload| {
            ServerOp::Message(Incoming { subject, sid: 3, reply, headers: Headers(b""), payload })
        };
        let last = Incoming { subject: "a.b", sid: 3, reply: "", headers: Headers(HEADERS), payload: b"hi" };
        assert_eq!(
            seen,
            [
                ServerOp::Info(b"{\"a\": 1}"),
                ServerOp::Ping,
                plain("a.b", "r.1", b"hello"),
                plain("a", "", b""),
                ServerOp::Error("no"),
                ServerOp::Message(last),
            ]
        );
    }

    #[test]
    fn headers_have_values_and_a_status() {
        let headers = Headers(HEADERS);
        assert_eq!(headers.value("nats-sequence"), Some("7"));
        assert_eq!(headers.value("Bowline"), Some("t01"));
        assert_eq!(headers.value("Bow"), None);
        assert_eq!((headers.status(), Headers(b"NATS/1.0 503\r\n\r\n").status()), (None, Some(503)));
    }

    #[test]
    fn what_no_server_sends_is_an_error() {
        for input in [
            "HELLO\r\n",
            "MSG a 1\r\n",
            "MSG a b 0\r\n\r\n",
            "MSG a 1 -3\r\n",
            "HMSG a 1 9 3\r\nabc\r\n",
            "MSG a 1 3\r\nabcdef\r\n",
            "MSG a 1 99999999999\r\n",
        ] {
            assert!(parse(input.as_bytes()).is_err(), "{input}");
        }
        assert_eq!(parse(&vec![b'x'; MAX_LINE - 1]), Ok(None));
        assert!(parse(&vec![b'x'; MAX_LINE]).is_err());
        assert!(parse(b"MSG \xff 1 0\r\n\r\n").is_err());
    }

    #[test]
    fn a_published_message_has_the_sizes_that_the_line_names() {
        let mut output = Vec::new();
        publish(&mut output, "a.b", "", &[], b"hi");
        assert_eq!(output, b"PUB a.b 2\r\nhi\r\n");
        output.clear();
        publish(&mut output, "a.b", "r", &[("Bowline", "t01")], b"hi");
        assert_eq!(output, b"HPUB a.b r 26 28\r\nNATS/1.0\r\nBowline: t01\r\n\r\nhi\r\n");
    }
}
