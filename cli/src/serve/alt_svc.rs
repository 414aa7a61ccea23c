//! The header that tells clients of HTTP/3.

use std::sync::{Arc, OnceLock};

use bowline::Acceptance;
use bowline::http::HeaderMap;
use bowline::http::header::{ALT_SVC, HeaderValue};

/// The header `Alt-Svc` of all answers (RFC 7838 3), once the port of HTTP/3 is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct AltSvc(Arc<OnceLock<HeaderValue>>);

impl AltSvc {
    /// Sets the port of HTTP/3. Clients remember it for a day.
    pub(crate) fn set(&self, port: u16) {
        let value = HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400"));
        // It is set once, before the first request.
        let _ = self.0.set(value.expect("a number is valid in a header"));
    }

    /// Adds the header to a response.
    pub(crate) fn insert_into(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.0.get() {
            headers.insert(ALT_SVC, value.clone());
        }
    }

    /// Adds the header to the response that accepts a WebSocket.
    pub(crate) fn add_to(&self, acceptance: Acceptance) -> Acceptance {
        match self.0.get() {
            Some(value) => acceptance.header(ALT_SVC, value.clone()),
            None => acceptance,
        }
    }
}
