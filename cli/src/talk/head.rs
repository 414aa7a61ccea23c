//! The heads of the opening handshake, for `--verbose` and for refusals.

use std::fmt::Write as _;
use std::time::Duration;

use bowline::http::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderMap, LOCATION, PROXY_AUTHENTICATE, RETRY_AFTER,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, SERVER,
    UPGRADE, WWW_AUTHENTICATE,
};
use bowline::http::{HeaderName, Request, Response, StatusCode, Version as HttpVersion};
use bowline::{Error, HandshakeTimes};

use crate::connect::{Version, in_options};
use crate::escape;

/// The headers of a refusal that help to find its reason.
const TELLING: [HeaderName; 9] = [
    LOCATION,
    WWW_AUTHENTICATE,
    PROXY_AUTHENTICATE,
    RETRY_AFTER,
    SEC_WEBSOCKET_VERSION,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_EXTENSIONS,
    CONTENT_TYPE,
    SERVER,
];

/// The headers of HTTP/1.1 that have no place in HTTP/2 (RFC 8441 5).
const OF_HTTP1: [HeaderName; 4] = [HOST, UPGRADE, CONNECTION, SEC_WEBSOCKET_KEY];

/// The lines of a request. Credentials are hidden, and the key, as each request has another one.
pub(super) fn of_request(request: &Request<()>, version: Version) -> Vec<String> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let is_http1 = matches!(version, Version::Http1);
    let mut lines = if is_http1 {
        vec![format!("> GET {path} HTTP/1.1")]
    } else {
        let host = request.headers().get(HOST).map_or(String::new(), |host| text(host.as_bytes()));
        let scheme = match request.uri().scheme_str() {
            Some("wss" | "https") => "https",
            _ => "http",
        };
        let pseudo = [("protocol", "websocket"), ("scheme", scheme), ("authority", &host), ("path", path)];
        let pseudo = pseudo.map(|(name, value)| format!("> :{name}: {value}"));
        [vec!["> :method: CONNECT".to_owned()], pseudo.into()].concat()
    };
    for (name, value) in request.headers() {
        let value = match value {
            _ if !is_http1 && OF_HTTP1.contains(name) => continue,
            value if value.is_sensitive() => "(hidden)".into(),
            _ if name == SEC_WEBSOCKET_KEY => "(random)".into(),
            value => text(value.as_bytes()),
        };
        lines.push(format!("> {name}: {value}"));
    }
    lines
}

/// The lines of a response.
pub(super) fn of_response(response: &Response<()>) -> Vec<String> {
    let status = line_of_status(response.status());
    let mut lines = vec![format!("< {:?} {status}", response.version())];
    lines.extend(of_headers(response.headers()).into_iter().map(|line| format!("< {line}")));
    lines
}

/// The lines about the way to the server: QUIC if it is used, and the times of the steps.
pub(super) fn of_connection(response: &Response<()>) -> Vec<String> {
    let mut lines = Vec::new();
    if response.version() == HttpVersion::HTTP_3 {
        // quinn opens connections of this version alone, and QUIC has no older TLS (RFC 9001 4.2).
        lines.push("* QUIC version 1, TLS 1.3, ALPN h3".to_owned());
    }
    if let Some(times) = response.extensions().get::<HandshakeTimes>() {
        let steps = [
            ("resolved", times.resolved()),
            ("connected", times.connected()),
            ("secured", times.secured()),
            ("open", Some(times.upgraded())),
        ];
        let steps = steps.into_iter().filter_map(|(step, time)| {
            let micros = u64::try_from(time?.as_micros()).unwrap_or(u64::MAX);
            Some(format!("{step} after {:?}", Duration::from_micros(micros)))
        });
        lines.push(format!("* {}", steps.collect::<Vec<_>>().join(", ")));
    }
    lines
}

/// The text about a refusal: the reason, the headers that help, and the beginning of the body.
pub(super) fn of_refusal(error: &Error) -> String {
    let mut lines = in_options(error);
    let Some(response) = error.response() else { return lines };
    for name in TELLING {
        for value in response.headers().get_all(&name) {
            let _ = write!(lines, "\n  {name}: {}", text(value.as_bytes()));
        }
    }
    let body = String::from_utf8_lossy(response.body());
    if !body.trim().is_empty() {
        let _ = write!(lines, "\n\n{}", body.trim_end());
    }
    lines
}

/// The lines of headers.
pub(super) fn of_headers(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", text(value.as_bytes()))).collect()
}

fn line_of_status(status: StatusCode) -> String {
    format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default()).trim_end().to_owned()
}

fn text(value: &[u8]) -> String {
    escape::line(&String::from_utf8_lossy(value))
}
