//! The heads of the opening handshake, for `--verbose` and for refusals.

use std::fmt::Write as _;

use bowline::Error;
use bowline::http::header::{
    CONTENT_TYPE, HeaderMap, LOCATION, PROXY_AUTHENTICATE, RETRY_AFTER, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, SERVER, WWW_AUTHENTICATE,
};
use bowline::http::{Request, Response, StatusCode};

use crate::talk::display::escape;

/// The headers of a refusal that help to find its reason.
const TELLING: [bowline::http::HeaderName; 9] = [
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

/// The lines of a request. Credentials are hidden, and the key, as each request has another one.
pub(super) fn of_request(request: &Request<()>) -> Vec<String> {
    let mut lines = vec![format!("> {} {} {:?}", request.method(), request.uri(), request.version())];
    for (name, value) in request.headers() {
        let value = match value {
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

/// The text about a refusal: the reason, the headers that help, and the beginning of the body.
pub(super) fn of_refusal(error: &Error) -> String {
    let mut lines = crate::connect::in_options(error);
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
