//! The request and the response of an opening handshake, as text of HTTP/1.1 and as parts of HTTP/2 and 3.

use bowline::http::header::HeaderMap;
use bowline::http::uri::Authority;
use bowline::http::{self, HeaderName, HeaderValue, Method, Request, Uri};
use bowline_proto::handshake::Key;

use super::transcript::is_secret;

/// The headers of HTTP/1.1 that pseudo-headers replace (RFC 8441 5).
const REPLACED: [&str; 4] = ["connection", "upgrade", "host", "sec-websocket-key"];

/// The bytes of a response's head that are read.
const HEAD_MAX: usize = 64 << 10;

/// The bytes of a refusal's body that are kept.
pub(crate) const BODY_KEPT: usize = 1 << 10;

/// A change to a correct request.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Method(&'static str),
    /// The version of HTTP in the request line.
    HttpVersion(&'static str),
    /// The value of `:protocol` (RFC 8441 4).
    Protocol(&'static str),
    Set(&'static str, String),
    Add(&'static str, String),
    /// A header that occurs this many times.
    AddMany(&'static str, &'static str, usize),
    Remove(&'static str),
    LowerCaseNames,
    UpperCaseNames,
    /// `END_STREAM` on the request (HTTP/2 alone).
    EndOfStream,
}

/// The pace at which the bytes of the request are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    AtOnce,
    /// A few bytes at a time, each in a packet of its own.
    Slow,
    /// The first bytes only.
    Truncated,
}

/// A request, whose headers keep their spelling.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) http_version: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) headers: Vec<(String, HeaderValue)>,
    pub(crate) body: RequestBody,
}

/// The part of a request after its head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RequestBody {
    /// The frames of the WebSocket.
    Frames,
    /// Nothing: the request ends the stream (HTTP/2).
    Absent,
}

impl RequestHead {
    /// A correct request, by the options of the command line.
    pub(crate) fn new(request: &Request<()>) -> Self {
        let headers = request
            .headers()
            .iter()
            // The cases that are about extensions offer them.
            .filter(|(name, _)| *name != "sec-websocket-extensions")
            .map(|(name, value)| (title_case(name.as_str()), value.clone()))
            .collect();
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let (method, http_version, protocol) = ("GET", "HTTP/1.1", "websocket");
        Self { method, target, http_version, protocol, headers, body: RequestBody::Frames }
    }

    pub(crate) fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::Method(method) => self.method = method,
            Edit::HttpVersion(version) => self.http_version = version,
            Edit::Protocol(protocol) => self.protocol = protocol,
            Edit::Set(name, value) => {
                self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                self.add(name, value);
            }
            Edit::Add(name, value) => self.add(name, value),
            Edit::AddMany(name, value, times) => (0..*times).for_each(|_| self.add(name, value)),
            Edit::Remove(name) => self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name)),
            Edit::LowerCaseNames => self.headers.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase()),
            Edit::UpperCaseNames => self.headers.iter_mut().for_each(|(name, _)| name.make_ascii_uppercase()),
            Edit::EndOfStream => self.body = RequestBody::Absent,
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        let value = value.parse().expect("the values of the cases are printable");
        self.headers.push((name.to_owned(), value));
    }

    /// All values of a header.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name));
        named.filter_map(|(_, value)| value.to_str().ok())
    }

    /// The value of Sec-WebSocket-Accept that this request asks for.
    pub(crate) fn accept(&self) -> Option<String> {
        let key = Key::parse(self.values("sec-websocket-key").next()?.as_bytes())?;
        Some(key.accept().as_str().to_owned())
    }

    /// The request as HTTP/1.1 has it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} {}\r\n", self.method, self.target, self.http_version).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

impl RequestHead {
    /// The request as HTTP/2 and HTTP/3 have it: an extended CONNECT, if its method was not edited.
    /// `protocol` makes the extension that is the `:protocol`.
    pub(crate) fn to_request<P: Clone + Send + Sync + 'static>(
        &self,
        scheme: &str,
        authority: &Authority,
        protocol: impl FnOnce(&'static str) -> P,
    ) -> Result<Request<()>, http::Error> {
        let uri = Uri::builder().scheme(scheme).authority(authority.clone());
        let mut built = Request::builder().uri(uri.path_and_query(self.target.as_str()).build()?);
        built = if self.method == "GET" {
            built.method(Method::CONNECT).extension(protocol(self.protocol))
        } else {
            built.method(self.method)
        };
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            if !REPLACED.contains(&lower.as_str()) {
                built = built.header(lower, value);
            }
        }
        built.body(())
    }

    /// The pseudo-headers and headers of a request that was made of this one, as a transcript shows them.
    pub(crate) fn described(&self, request: &Request<()>) -> String {
        let (method, uri) = (request.method(), request.uri());
        let protocol = if *method == Method::CONNECT { self.protocol } else { "" };
        format!("{method} {uri}, :protocol {protocol:?}{}", listed(request.headers()))
    }
}

/// Headers, as a transcript shows them.
fn listed(headers: &HeaderMap) -> String {
    let shown = |(name, value): (&HeaderName, &HeaderValue)| {
        if is_secret(name.as_str().as_bytes()) {
            format!(", {name}: [hidden]")
        } else {
            format!(", {name}: {}", value.as_bytes().escape_ascii())
        }
    };
    headers.iter().map(shown).collect()
}

/// The name of a header as RFC 6455 writes it.
fn title_case(name: &str) -> String {
    let mut at_start = true;
    let parts = name.replace("websocket", "WebSocket");
    parts
        .chars()
        .map(|char| {
            let cased = if at_start { char.to_ascii_uppercase() } else { char };
            at_start = char == '-';
            cased
        })
        .collect()
}

/// The head of a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
}

/// The result of parsing the start of a stream as HTTP/1.1.
pub(crate) enum Parsed {
    /// More bytes are needed.
    Partial,
    /// The head, and its size.
    Complete(ResponseHead, usize),
    /// Anything but a response of HTTP/1.1, for this reason.
    Invalid(String),
}

impl ResponseHead {
    /// The head of a response over HTTP/2 or HTTP/3.
    pub(crate) fn of_response<B>(response: &http::Response<B>) -> Self {
        Self { status: response.status().as_u16(), headers: response.headers().clone() }
    }

    /// The pseudo-header and the headers, as a transcript shows them.
    pub(crate) fn described(&self) -> String {
        format!(":status {}{}", self.status, listed(&self.headers))
    }

    pub(crate) fn parse(bytes: &[u8]) -> Parsed {
        let begin = &bytes[..bytes.len().min(5)];
        if !b"HTTP/".starts_with(begin) {
            return Parsed::Invalid(format!(
                "the response begins with \"{}\", not with HTTP/1.1",
                bytes[..bytes.len().min(16)].escape_ascii()
            ));
        }
        let Some(size) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            let is_endless = bytes.len() > HEAD_MAX;
            return if is_endless {
                Parsed::Invalid(format!("the head of the response has no end within {HEAD_MAX} bytes"))
            } else {
                Parsed::Partial
            };
        };
        match Self::of_lines(&bytes[..size]) {
            Ok(head) => Parsed::Complete(head, size + 4),
            Err(line) => Parsed::Invalid(format!("the response has a malformed line: \"{line}\"")),
        }
    }

    fn of_lines(head: &[u8]) -> Result<Self, String> {
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let malformed = |line: &[u8]| line[..line.len().min(80)].escape_ascii().to_string();
        let status_line = lines.next().unwrap_or_default();
        let status = match status_line {
            [b'H', b'T', b'T', b'P', b'/', _, b'.', _, b' ', status @ ..] if status.len() >= 3 => {
                std::str::from_utf8(&status[..3]).ok().and_then(|status| status.parse().ok())
            }
            _ => None,
        };
        let status = status.ok_or_else(|| malformed(status_line))?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = header_of(line).ok_or_else(|| malformed(line))?;
            headers.append(name, value);
        }
        Ok(Self { status, headers })
    }

    /// The value of a header that occurs once.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All elements of a header that is a list of tokens, in lower case.
    pub(crate) fn tokens(&self, name: &str) -> Vec<String> {
        let values = self.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(|token| token.trim().to_ascii_lowercase()).collect()
    }
}

fn header_of(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}
