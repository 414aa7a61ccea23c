//! The headers of an opening handshake.

use http::header::{
    AsHeaderName, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};

/// The number of times that a header occurs, with its value if it occurs once.
pub(crate) enum Occurrence<'a> {
    None,
    Once(&'a HeaderValue),
    Repeated,
}

impl<'a> Occurrence<'a> {
    pub(crate) fn of(headers: &'a HeaderMap, name: impl AsHeaderName) -> Self {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::None,
            (Some(value), None) => Self::Once(value),
            (Some(_), Some(_)) => Self::Repeated,
        }
    }
}

/// Returns `true` if a list header contains `token`, in any of its lines and in any case (RFC 9110 5.6.1).
pub(crate) fn has_token(headers: &HeaderMap, name: impl AsHeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|element| element.trim().eq_ignore_ascii_case(token))
}

/// Returns `true` for the headers that the library sets in a request or a response of the handshake, or whose
/// absence means that there is no body.
pub(crate) fn is_of_handshake(name: &HeaderName) -> bool {
    name.as_str().starts_with("sec-websocket-")
        || [CONNECTION, UPGRADE, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)
}
