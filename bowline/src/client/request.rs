//! The request of an opening handshake.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bowline_proto::header::is_token;
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use http::{Request, Uri};

use crate::client::handshake::ClientHandshake;
use crate::client::times::Steps;
use crate::client::url::Url;
use crate::connection::parts::Config;
use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::Deadline;
use crate::handshake::headers::is_of_handshake;

/// The options of a client that do not depend on how the server is reached.
#[derive(Clone, Default)]
pub(crate) struct Offer {
    headers: HeaderMap,
    subprotocols: Vec<String>,
    pub(crate) config: Config,
    /// The error of the first invalid setting.
    invalid: Option<Error>,
}

/// An attempt to open a WebSocket: everything is checked, and nothing was sent.
pub(crate) struct Attempt {
    pub(crate) url: Url,
    pub(crate) request: Request<()>,
    pub(crate) handshake: ClientHandshake,
    pub(crate) deadline: Deadline,
    pub(crate) steps: Steps,
}

impl Offer {
    /// Adds a header that is not one of the handshake's own.
    pub(crate) fn add_header<N, V>(&mut self, name: N, value: V)
    where
        N: TryInto<HeaderName>,
        N::Error: Into<http::Error>,
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        let name = match name.try_into() {
            Ok(name) => name,
            Err(error) => {
                return self.refuse_for("the name of a header contains an invalid character", error);
            }
        };
        if let Some(hint) = reserved(&name) {
            return self.refuse(format!("the header {name} is part of the handshake: {hint}"));
        }
        if let Some(mut value) = self.value_of(&name, value) {
            if [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(&name) {
                // `Debug` of the request omits sensitive values.
                value.set_sensitive(true);
            }
            self.headers.append(name, value);
        }
    }

    /// Sets a header that occurs once.
    pub(crate) fn set_header<V>(&mut self, name: HeaderName, value: V)
    where
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        if let Some(value) = self.value_of(&name, value) {
            self.headers.insert(name, value);
        }
    }

    fn value_of<V>(&mut self, name: &HeaderName, value: V) -> Option<HeaderValue>
    where
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        let refused = |error| {
            let what = "contains an invalid character, such as a line break";
            self.refuse_for(format!("the value of the header {name} {what}"), error);
        };
        value.try_into().map_err(refused).ok()
    }

    pub(crate) fn set_subprotocols(&mut self, subprotocols: Vec<String>) {
        let mut seen = HashSet::new();
        // RFC 6455 4.1: the elements are tokens, and each occurs once.
        let wrong = subprotocols.iter().find_map(|subprotocol| {
            if !is_token(subprotocol) {
                Some(format!("the subprotocol {subprotocol:?} is not a token"))
            } else if !seen.insert(subprotocol) {
                Some(format!("the subprotocol {subprotocol:?} is offered twice"))
            } else {
                None
            }
        });
        if let Some(text) = wrong {
            self.refuse(text);
        }
        self.subprotocols = subprotocols;
    }

    /// Returns whether the options set this header.
    pub(crate) fn has_header(&self, name: &HeaderName) -> bool {
        self.headers.contains_key(name)
    }

    /// Keeps the error of an invalid setting, unless there was one before. Nothing is sent then.
    pub(crate) fn refuse(&mut self, text: impl Into<Cow<'static, str>>) {
        self.invalid.get_or_insert_with(|| Error::new(ErrorKind::InvalidInput, text));
    }

    fn refuse_for(&mut self, text: impl Into<Cow<'static, str>>, error: impl Into<http::Error>) {
        self.invalid.get_or_insert_with(|| Error::with_source(ErrorKind::InvalidInput, text, error.into()));
    }

    /// Returns the error of the first invalid setting, if there is one.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.invalid.clone().map_or(Ok(()), Err)
    }

    /// Checks the settings, and builds the request.
    pub(crate) fn prepare(&self, url: Url) -> Result<Attempt, Error> {
        let steps = Steps::begin();
        self.validate()?;
        let handshake = ClientHandshake::new(self.subprotocols.clone(), self.config.clone());
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from(url.path_and_query());
        let headers = request.headers_mut();
        // RFC 6455 4.1: the Host header contains the host, and the port unless it is the default.
        let host = HeaderValue::try_from(url.authority()).expect("an authority is a header's value");
        headers.insert(HOST, host);
        handshake.write_headers(headers);
        if let Some(authorization) = url.authorization() {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        // `extend` replaces headers of the same name, and keeps all lines of one name that it adds.
        headers.extend(self.headers.clone());
        let deadline = Deadline::after(self.config.limits.handshake_timeout);
        Ok(Attempt { url, request, handshake, deadline, steps })
    }
}

impl fmt::Debug for Offer {
    /// Shows the names of the headers, but no value and no subprotocol, any of which may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&HeaderName> = self.headers.keys().collect();
        f.debug_struct("Offer")
            .field("headers", &headers)
            .field("subprotocols", &self.subprotocols.len())
            .field("config", &self.config)
            .field("invalid", &self.invalid)
            .finish()
    }
}

/// Returns the hint for a header that belongs to the handshake, or `None` if a user may set the header.
fn reserved(name: &HeaderName) -> Option<&'static str> {
    match name.as_str() {
        "host" => Some("use Connector::host"),
        "origin" => Some("use Connector::origin"),
        "sec-websocket-protocol" => Some("use Connector::subprotocols"),
        "content-length" | "transfer-encoding" => Some("the request has no body"),
        _ if is_of_handshake(name) => Some("the library sets it"),
        _ => None,
    }
}
