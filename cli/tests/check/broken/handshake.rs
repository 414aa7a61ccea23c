//! The opening handshake of the server.

use std::io;

use bowline::proto::DeflateParameters;
use bowline::proto::handshake::Key;
use bowline::proto::header::{Extension, parse_tokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fault::Fault;

/// The largest head.
const HEAD_MAX: usize = 16 << 10;

/// A handshake that was accepted.
pub(super) struct Accepted {
    /// The parameters of compression that were agreed on.
    pub(super) deflate: Option<DeflateParameters>,
    /// Bytes that arrived with the request.
    pub(super) leftover: Vec<u8>,
}

/// A request, with the names of headers in lower case.
struct Head {
    line: String,
    headers: Vec<(String, String)>,
}

/// Answers a request. Returns `None` if it was rejected.
pub(super) async fn answer(stream: &mut TcpStream, fault: Fault) -> io::Result<Option<Accepted>> {
    let Some((head, leftover)) = read_head(stream, fault).await? else {
        stream.write_all(b"HTTP/1.1 400 Bad request\r\nConnection: close\r\n\r\n").await?;
        return Ok(None);
    };
    if let Some(rejection) = rejection(&head, fault) {
        stream.write_all(format!("HTTP/1.1 {rejection}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        return Ok(None);
    }
    let (extensions, deflate) = agreed(&head, fault);
    let mut response = String::from("HTTP/1.1 101 Switching Protocols\r\n");
    if fault != Fault::NoUpgradeHeader {
        response.push_str("Upgrade: websocket\r\n");
    }
    if fault != Fault::NoConnectionHeader {
        response.push_str("Connection: Upgrade\r\n");
    }
    let key = head.value("sec-websocket-key").unwrap_or_default();
    let accept = Key::parse(key.as_bytes()).unwrap_or(Key::from_nonce([0; 16])).accept();
    let accept = if fault == Fault::WrongAccept { "c3VycHJpc2UhIHN1cnByaXNlIQ==" } else { accept.as_str() };
    response.extend(["Sec-WebSocket-Accept: ", accept, "\r\n"]);
    if fault == Fault::ChoosesSubprotocol {
        response.push_str("Sec-WebSocket-Protocol: chat\r\n");
    }
    if !extensions.is_empty() {
        response.extend(["Sec-WebSocket-Extensions: ", &extensions, "\r\n"]);
    }
    response.push_str("\r\n");
    stream.write_all(response.as_bytes()).await?;
    Ok(Some(Accepted { deflate, leftover }))
}

async fn read_head(stream: &mut TcpStream, fault: Fault) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut buf = Vec::with_capacity(HEAD_MAX);
    loop {
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = buf.windows(4).position(|window| window == b"\r\n\r\n");
        match end {
            Some(end) if end <= HEAD_MAX => {
                let leftover = buf.split_off(end + 4);
                return Ok(parse(&buf[..end], fault).map(|head| (head, leftover)));
            }
            None if fault == Fault::ReadsHeadOnce => return Ok(None),
            None if buf.len() <= HEAD_MAX => {}
            _ => return Ok(None),
        }
    }
}

fn parse(bytes: &[u8], fault: Fault) -> Option<Head> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let line = lines.next()?.to_owned();
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.ends_with(' ') {
            return None;
        }
        let name =
            if fault == Fault::NamesWithCase && name.starts_with(|first: char| first.is_ascii_lowercase()) {
                format!("unknown-{name}")
            } else {
                name.to_ascii_lowercase()
            };
        headers.push((name, value.trim().to_owned()));
    }
    Some(Head { line, headers })
}

impl Head {
    fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(other, _)| other == name).count()
    }
}

/// The status line and headers of a rejection, if the request is wrong.
fn rejection(head: &Head, fault: Fault) -> Option<String> {
    let [method, _, version] = head.line.split(' ').collect::<Vec<_>>()[..] else {
        return Some("400 Bad request".into());
    };
    let is = |value: &str, expected: &str| match fault {
        Fault::ValuesWithCase => value == expected,
        _ => value.eq_ignore_ascii_case(expected),
    };
    let connection = head.value("connection").unwrap_or_default();
    let is_upgrade = match fault {
        Fault::OneConnectionToken => connection.eq_ignore_ascii_case("upgrade"),
        Fault::ValuesWithCase => is(connection, "Upgrade"),
        _ => parse_tokens(connection).unwrap_or_default().iter().any(|token| is(token, "upgrade")),
    };
    let is_websocket = is(head.value("upgrade").unwrap_or_default(), "websocket")
        || (fault == Fault::AcceptsMissingUpgrade && head.value("upgrade").is_none());
    let key = head.value("sec-websocket-key").unwrap_or_default();
    let is_key = Key::parse(key.as_bytes()).is_some()
        || (fault == Fault::AcceptsMissingKey && key.is_empty())
        || (fault == Fault::AcceptsShortKey && !key.is_empty());
    let keys = head.count("sec-websocket-key");
    let rules = [
        (method == "GET" || fault == Fault::AcceptsPost, "405 Not GET"),
        (version == "HTTP/1.1" || fault == Fault::AcceptsHttp10, "400 Not HTTP/1.1"),
        (head.value("host").is_some() || fault == Fault::AcceptsMissingHost, "400 No host"),
        (is_upgrade && is_websocket, "426 No upgrade"),
        (is_key && (keys < 2 || fault == Fault::AcceptsTwoKeys), "400 Key"),
    ];
    if let Some((_, status)) = rules.iter().find(|(is_right, _)| !is_right) {
        return Some((*status).to_owned());
    }
    match (head.value("sec-websocket-version"), fault) {
        (Some("13"), _) | (Some("8"), Fault::AcceptsVersion8) => None,
        (_, Fault::HidesVersions) => Some("400 Version".into()),
        _ => Some("426 Version\r\nSec-WebSocket-Version: 13".into()),
    }
}

/// The extensions of the response, and the parameters of compression.
fn agreed(head: &Head, fault: Fault) -> (String, Option<DeflateParameters>) {
    let Some(value) = head.value("sec-websocket-extensions") else { return (String::new(), None) };
    let no_takeover = DeflateParameters {
        client_no_context_takeover: true,
        server_no_context_takeover: true,
        ..DeflateParameters::default()
    };
    match fault {
        Fault::AgreesOnAnything => return (value.to_owned(), None),
        Fault::AgreesOnInvalidOffer if value.contains("=7") => {
            return ("permessage-deflate".into(), Some(no_takeover));
        }
        _ => {}
    }
    let offers = Extension::parse_list(value).unwrap_or_default();
    match no_takeover.accept(&offers) {
        Some((parameters, answer)) => (answer.to_string(), Some(parameters)),
        None => (String::new(), None),
    }
}
