//! The acceptance of a handshake by the application.

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use crate::error::{Error, ErrorKind};
use crate::handshake::headers::is_of_handshake;
use crate::limits::Limits;
use crate::message::compression::CompressionOptions;
use crate::server::handshake::{Agreement, Offers};
use crate::server::rejection::Rejection;

/// The application's decision about a request that is a valid handshake. By default every such request is
/// accepted.
#[derive(Clone, Default)]
pub(crate) struct RequestCheck(Option<Arc<dyn Fn(Parts) -> CheckFuture + Send + Sync>>);

struct CheckFuture(Pin<Box<dyn Future<Output = Result<Acceptance, Rejection>> + Send>>);

impl RequestCheck {
    pub(crate) fn new<F, Fut, T>(check: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Rejection>> + Send + 'static,
        T: Into<Acceptance>,
    {
        Self(Some(Arc::new(move |head| {
            let checking = check(head);
            CheckFuture(Box::pin(async move { checking.await.map(Into::into) }))
        })))
    }

    /// Returns the same check, which is asked only after `admit` has succeeded.
    pub(crate) fn after(&self, admit: impl Fn() -> Result<(), Rejection> + Send + Sync + 'static) -> Self {
        let Self(check) = self.clone();
        Self(Some(Arc::new(move |head| match (admit(), &check) {
            (Err(rejection), _) => CheckFuture(Box::pin(ready(Err(rejection)))),
            (Ok(()), Some(check)) => check(head),
            (Ok(()), None) => CheckFuture(Box::pin(ready(Ok(head.into())))),
        })))
    }

    /// Asks the application about a request, on whose terms server and client agree.
    pub(crate) async fn decide(&self, head: Parts, agreement: Agreement) -> Result<Admission, Refusal> {
        let Some(check) = &self.0 else { return Ok(Admission { head, agreement }) };
        // The application may change the head.
        let offers = Offers::of(&head.headers);
        let acceptance = check(head).0.await.map_err(Refusal::of_rejection)?;
        acceptance.settle(agreement, &offers).map_err(|text| {
            Refusal::of_invalid(format!("the acceptance of Server::on_request is invalid: {text}"))
        })
    }
}

impl fmt::Debug for RequestCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a closure" } else { "none" })
    }
}

/// A request that opens a WebSocket.
pub(crate) struct Admission {
    pub(crate) head: Parts,
    pub(crate) agreement: Agreement,
}

/// The reason why a request opens no WebSocket, for the server, and the response for the client. The event
/// about the refusal contains the source of the rejection.
pub(crate) struct Refusal {
    pub(crate) error: Error,
    pub(crate) rejection: Rejection,
}

impl Refusal {
    /// Creates the refusal of a request that the application rejects.
    fn of_rejection(rejection: Rejection) -> Self {
        let status = rejection.status();
        // RFC 9110 15.2, 9.3.6: another response follows an informational one, and a successful one accepts a
        // CONNECT.
        if status.is_informational() || status.is_success() {
            return Self::of_invalid(format!(
                "Server::on_request rejected a request with {status}, but the status has to be 300 or above"
            ));
        }
        rejection.into()
    }

    /// Creates the refusal of a request to which the application's answer is invalid. `text` describes the
    /// answer, and is for the server only.
    fn of_invalid(text: String) -> Self {
        let rejection = Rejection::from(StatusCode::INTERNAL_SERVER_ERROR);
        let error = Error::with_source(ErrorKind::Handshake, text.clone(), rejection.clone());
        Self { error, rejection: rejection.with_source(text) }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self { error: rejection.clone().into_error(), rejection }
    }
}

/// The acceptance of one handshake, with the options of its connection.
///
/// The closure of [`Server::on_request`](crate::Server::on_request) returns an acceptance, or the head of
/// the request if nothing is to be added. The response may have headers of the application's own, such as
/// cookies. The other methods replace settings of the [`Acceptor`](crate::Acceptor) for this connection.
///
/// An acceptance that is invalid opens no connection: the client receives a 500, and
/// [`Server::on_error`](crate::Server::on_error) an error that names the setting.
///
/// ```
/// use bowline::{Acceptance, Limits, Server};
/// use http::request::Parts;
///
/// let server = Server::new().on_request(|head: Parts| async move {
///     let is_upload = head.uri.path() == "/upload";
///     let acceptance = Acceptance::from(head).header("set-cookie", "session=1234; HttpOnly; SameSite=Lax");
///     Ok(match is_upload {
///         true => acceptance.limits(Limits::default().message_size(16 * 1024 * 1024)),
///         false => acceptance,
///     })
/// });
/// ```
pub struct Acceptance {
    head: Parts,
    headers: HeaderMap,
    subprotocol: Option<String>,
    /// The later of two changes of one setting counts.
    changes: Vec<Change>,
    /// The description of the first invalid setting.
    invalid: Option<String>,
}

/// A setting of the connection that differs from that of the acceptor.
enum Change {
    Limits(Limits),
    Keepalive(Option<Duration>),
    #[cfg_attr(not(feature = "deflate"), allow(dead_code, reason = "its setter needs the feature"))]
    Compression(CompressionOptions),
}

impl From<Parts> for Acceptance {
    /// Accepts the request with this head, under the settings of the acceptor.
    fn from(head: Parts) -> Self {
        Self { head, headers: HeaderMap::new(), subprotocol: None, changes: Vec::new(), invalid: None }
    }
}

impl Acceptance {
    /// Adds a header to the response: the 101 or, over HTTP/2, the 200. Repeated calls add further headers,
    /// also of the same name. Default: none.
    ///
    /// The headers of the handshake itself are invalid: `Upgrade`, `Connection`, `Content-Length`,
    /// `Transfer-Encoding`, and those that begin with `Sec-WebSocket-`. A value can't contain line breaks.
    ///
    /// ```
    /// # use bowline::Acceptance;
    /// # fn accept(head: http::request::Parts) -> Acceptance {
    /// Acceptance::from(head).header("set-cookie", "session=1234; HttpOnly").header("x-request-id", "f00d")
    /// # }
    /// ```
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: Into<http::Error>,
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        let Ok(name) = name.try_into() else {
            return self.refuse("the name of a header contains an invalid character");
        };
        if is_of_handshake(&name) {
            return self
                .refuse(format!("the header {name} is part of the handshake, and the library sets it"));
        }
        let Ok(value) = value.try_into() else {
            let what = "contains an invalid character, such as a line break";
            return self.refuse(format!("the value of the header {name} {what}"));
        };
        self.headers.append(name, value);
        self
    }

    /// Sets the subprotocol of the connection, which must be one that the client offers (RFC 6455 4.2.2).
    /// Default: the first of [`Acceptor::subprotocols`](crate::Acceptor::subprotocols) that is offered.
    ///
    /// ```
    /// # use bowline::Acceptance;
    /// # fn accept(head: http::request::Parts) -> Acceptance {
    /// let offered = head.headers.get("sec-websocket-protocol").and_then(|list| list.to_str().ok());
    /// let binary = offered.is_some_and(|list| list.split(',').any(|offer| offer.trim() == "v2.binary"));
    /// let acceptance = Acceptance::from(head);
    /// if binary { acceptance.subprotocol("v2.binary") } else { acceptance }
    /// # }
    /// ```
    pub fn subprotocol(mut self, subprotocol: impl Into<String>) -> Self {
        self.subprotocol = Some(subprotocol.into());
        self
    }

    /// Sets the limits of the connection. Default: those of [`Acceptor::limits`](crate::Acceptor::limits).
    ///
    /// The limits of the handshake and of the HTTP/2 connection have done their work by now, so only those
    /// of the acceptor count.
    ///
    /// ```
    /// # use bowline::{Acceptance, Limits};
    /// # fn accept(head: http::request::Parts) -> Acceptance {
    /// Acceptance::from(head).limits(Limits::default().message_size(64 * 1024))
    /// # }
    /// ```
    pub fn limits(mut self, limits: Limits) -> Self {
        let invalid = limits.invalid();
        self.changes.push(Change::Limits(limits));
        self.refuse_if(invalid)
    }

    /// Sets the keepalive interval of the connection. `None` switches the keepalive off. Default: that of
    /// [`Acceptor::keepalive`](crate::Acceptor::keepalive).
    ///
    /// ```
    /// # use bowline::Acceptance;
    /// # fn accept(head: http::request::Parts) -> Acceptance {
    /// Acceptance::from(head).keepalive(std::time::Duration::from_secs(60))
    /// # }
    /// ```
    pub fn keepalive(mut self, interval: impl Into<Option<Duration>>) -> Self {
        let interval = interval.into();
        self.changes.push(Change::Keepalive(interval));
        if interval == Some(Duration::ZERO) {
            return self.refuse(
                "the keepalive interval is zero: to switch the keepalive off, pass None to \
                 Acceptance::keepalive",
            );
        }
        self
    }

    /// Sets the compression of messages (RFC 7692) on the connection. Default: that of
    /// [`Acceptor::compression`](crate::Acceptor::compression). Available with the feature `deflate`.
    ///
    /// ```
    /// # use bowline::{Acceptance, Compression};
    /// # fn accept(head: http::request::Parts) -> Acceptance {
    /// Acceptance::from(head).compression(Compression::Off)
    /// # }
    /// ```
    #[cfg(feature = "deflate")]
    pub fn compression(mut self, options: impl Into<crate::CompressionOptions>) -> Self {
        let options = options.into();
        let invalid = options.invalid();
        self.changes.push(Change::Compression(options));
        self.refuse_if(invalid)
    }

    /// Changes what was agreed on. Returns the description of an invalid setting.
    fn settle(self, mut agreement: Agreement, offers: &Offers) -> Result<Admission, String> {
        let Self { head, headers, subprotocol, changes, invalid } = self;
        invalid.map_or(Ok(()), Err)?;
        if let Some(subprotocol) = subprotocol {
            // RFC 6455 4.2.2: the subprotocol is one of those that the client offers.
            if !offers.has_subprotocol(&subprotocol) {
                return Err(format!("the client did not offer the subprotocol {subprotocol:?}"));
            }
            agreement.agreed.subprotocol = Some(subprotocol.into());
        }
        for change in changes {
            match change {
                Change::Limits(limits) => agreement.config.limits = limits,
                Change::Keepalive(interval) => agreement.config.keepalive = interval,
                Change::Compression(options) => {
                    agreement.config.compression = options;
                    agreement.choose_extension(&offers.extensions());
                }
            }
        }
        agreement.headers = headers;
        Ok(Admission { head, agreement })
    }

    /// Keeps the description of an invalid setting, unless there was one before.
    fn refuse(mut self, text: impl Into<String>) -> Self {
        self.invalid.get_or_insert_with(|| text.into());
        self
    }

    fn refuse_if(self, invalid: Option<String>) -> Self {
        match invalid {
            Some(text) => self.refuse(text),
            None => self,
        }
    }
}

impl fmt::Debug for Acceptance {
    /// Omits the values of headers, which may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&HeaderName> = self.headers.keys().collect();
        f.debug_struct("Acceptance").field("headers", &names).finish_non_exhaustive()
    }
}
