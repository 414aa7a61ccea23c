//! The errors that a server reports to the application, with the client and the request that they concern.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bowline_proto::CloseCode;
use http::request::Parts;
use http::{Method, StatusCode, Uri};

use crate::error::{Error, ErrorKind, escaped, escaped_once, find_cause, write_causes};
use crate::server::rejection::Rejection;
use crate::socket::Sender;

/// An error of a server, with the client and the request that it concerns.
///
/// [`Server::on_error`](crate::Server::on_error) receives these. `Display` writes one line: the client's
/// address, the method and the path of the request as far as they are known, then the error and its causes.
///
/// ```text
/// 203.0.113.7:51234 GET /chat: the client's request was rejected: 401 Unauthorized
/// ```
///
/// The line contains neither the query, in which clients often send tokens, nor a header, apart from the
/// Origin and the Host of a request with a foreign origin. Control characters are escaped. `Debug` omits the
/// query and the headers, too.
///
/// # Examples
///
/// ```
/// use bowline::{ErrorKind, Server, ServerError};
///
/// fn log(error: ServerError) {
///     if error.is_noise() {
///         return;
///     }
///     match error.kind() {
///         Some(ErrorKind::Protocol | ErrorKind::Limit) => println!("a broken client: {error}"),
///         _ => eprintln!("{error}"),
///     }
/// }
///
/// let server = Server::new().on_error(log);
/// ```
pub struct ServerError {
    peer: Option<SocketAddr>,
    stage: Stage,
    error: Box<dyn StdError + Send + Sync>,
}

/// The progress of a client when its error occurred.
enum Stage {
    /// The operating system accepted no connection.
    Accepting,
    /// No whole request had arrived.
    Arriving,
    /// The request was not accepted.
    Requested(Box<Parts>),
    /// The request was accepted.
    Accepted {
        request: Option<(Method, Uri)>,
        /// The error that senders on the connection receive, if it had opened and ended.
        ended: Option<Error>,
    },
}

impl ServerError {
    /// Creates the error of a connection that could not be accepted.
    pub(crate) fn of_accepting(error: io::Error) -> Self {
        let error = Error::with_source(ErrorKind::Io, "accepting a connection failed", error);
        Self { peer: None, stage: Stage::Accepting, error: error.into() }
    }

    /// Creates the error of an opening handshake.
    pub(crate) fn of_opening(peer: Option<SocketAddr>, head: Option<Box<Parts>>, error: Error) -> Self {
        let stage = head.map_or(Stage::Arriving, Stage::Requested);
        Self { peer, stage, error: error.into() }
    }

    /// Creates the error of a connection that did not open after its request was accepted.
    pub(crate) fn of_upgrade(peer: Option<SocketAddr>, request: Option<RequestLine>, error: Error) -> Self {
        let request = request.and_then(|request| request.parse());
        Self { peer, stage: Stage::Accepted { request, ended: None }, error: error.into() }
    }

    /// Creates the error of a handler. `sender` belongs to its connection.
    pub(crate) fn of_handler(
        sender: &Sender,
        request: Option<RequestLine>,
        error: Box<dyn StdError + Send + Sync>,
    ) -> Self {
        let connection = &sender.connection;
        let request = request.and_then(|request| request.parse());
        let ended = connection.outbound().closed().cloned();
        Self { peer: connection.addresses.peer, stage: Stage::Accepted { request, ended }, error }
    }

    /// Returns the address of the client, or `None` if the address is not known.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Returns the method of the request, or `None` if no request had arrived.
    pub fn method(&self) -> Option<&Method> {
        match &self.stage {
            Stage::Accepting | Stage::Arriving => None,
            Stage::Requested(head) => Some(&head.method),
            Stage::Accepted { request, .. } => request.as_ref().map(|(method, _)| method),
        }
    }

    /// Returns the URI of the request with its query, or `None` if no request had arrived.
    pub fn uri(&self) -> Option<&Uri> {
        match &self.stage {
            Stage::Accepting | Stage::Arriving => None,
            Stage::Requested(head) => Some(&head.uri),
            Stage::Accepted { request, .. } => request.as_ref().map(|(_, uri)| uri),
        }
    }

    /// Returns the whole head of a request that was not accepted.
    ///
    /// The head of a request that was accepted is not kept for the life of its connection. A handler receives
    /// the head, and can add to its errors whatever is needed of it.
    pub fn head(&self) -> Option<&Parts> {
        match &self.stage {
            Stage::Requested(head) => Some(head),
            Stage::Accepting | Stage::Arriving | Stage::Accepted { .. } => None,
        }
    }

    /// Returns the error: an [`Error`](crate::Error) of the server, the error that the handler returned, or
    /// the text of a panic of the handler.
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
    }

    /// Returns the error by value: see [`error`](Self::error).
    pub fn into_error(self) -> Box<dyn StdError + Send + Sync> {
        self.error
    }

    /// Returns the kind of the first [`Error`](crate::Error) of this crate among the error and its causes.
    ///
    /// `anyhow::Error` hides the type of the error that it was made from, unless it has a context.
    pub fn kind(&self) -> Option<ErrorKind> {
        find_cause::<Error>(&*self.error).map(Error::kind)
    }

    /// Returns the status with which the request was rejected, or `None` if it was not rejected.
    ///
    /// ```
    /// let server = bowline::Server::new().on_error(|error| match error.status() {
    ///     Some(status) => println!("{status}: {:?}", error.uri()),
    ///     None => println!("{error}"),
    /// });
    /// ```
    pub fn status(&self) -> Option<StatusCode> {
        find_cause::<Rejection>(&*self.error).map(Rejection::status)
    }

    /// Returns `true` if the error says only that a client is gone, or that it never spoke the protocol.
    ///
    /// Health checks, port scanners and closed tabs produce such errors all the time:
    ///
    /// - Before a whole request has arrived, the client ended its connection, sent too little in time, or
    ///   sent bytes that are neither TLS nor HTTP.
    /// - The client ended its connection before its request was answered. In other HTTP servers, this can't
    ///   be told apart from a response that was not sent, and is not noise.
    /// - The handler returned an [`Error`](crate::Error) because its connection had ended: the client
    ///   vanished, answered no ping, or closed with 1000, 1001 or no code; or this side had closed.
    ///
    /// No other error is noise: neither rejections, slow checks, violations, limits and closes with other
    /// codes, nor whatever else a handler returns. A TLS handshake that fails for another reason, such as a
    /// certificate that the client refuses, is not noise either.
    ///
    /// A health check that sends a request of HTTP is rejected with 426. Proxies that drop the header
    /// `Upgrade` produce the same error, so that one is not noise:
    /// [`Server::fallback`](crate::Server::fallback) answers health checks.
    ///
    /// A handler's error may come from another connection, such as that of a proxy to its upstream server.
    /// Such an error is noise only if the client's connection has ended in the same way.
    ///
    /// ```
    /// let server = bowline::Server::new().on_error(|error| {
    ///     if !error.is_noise() {
    ///         eprintln!("{error}");
    ///     }
    /// });
    /// ```
    pub fn is_noise(&self) -> bool {
        let error = find_cause::<Error>(&*self.error);
        match &self.stage {
            Stage::Accepting | Stage::Accepted { ended: None, .. } => false,
            Stage::Arriving => error.is_some_and(|error| {
                let kind = error.kind();
                matches!(kind, ErrorKind::Disconnected | ErrorKind::Timeout | ErrorKind::Handshake)
            }),
            Stage::Requested(_) => error.is_some_and(|error| error.kind() == ErrorKind::Disconnected),
            Stage::Accepted { ended: Some(ended), .. } => match error {
                Some(error) => error.kind() == ended.kind() && says_gone(error),
                // `anyhow::Error` hides the type of the error that it was made from, and has its text.
                None => says_gone(ended) && self.error.to_string() == ended.to_string(),
            },
        }
    }
}

/// Returns `true` for the errors of connections whose peer is gone, or that were closed without complaint.
fn says_gone(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Disconnected | ErrorKind::Timeout => true,
        ErrorKind::Closed => error
            .close_frame()
            .is_none_or(|frame| matches!(frame.code(), CloseCode::NORMAL | CloseCode::GOING_AWAY)),
        _ => false,
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer.map(|peer| peer.to_string());
        let method = self.method().map(Method::to_string);
        // The query is omitted, as pages in browsers put tokens there.
        let path = self.uri().map(|uri| escaped(uri.path()));
        let subject: Vec<String> = [peer, method, path].into_iter().flatten().collect();
        if !subject.is_empty() {
            write!(f, "{}: ", subject.join(" "))?;
        }
        let text = escaped_once(&self.error.to_string());
        f.write_str(&text)?;
        write_causes(f, self.error.source(), text)
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerError")
            .field("peer_addr", &self.peer)
            .field("method", &self.method())
            .field("path", &self.uri().map(Uri::path))
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl StdError for ServerError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.error)
    }
}

/// The method and the URI of a request whose connection is open.
///
/// One small allocation: the head itself shares memory with the buffer into which the request was read.
pub(crate) struct RequestLine(Box<str>);

impl RequestLine {
    pub(crate) fn new(method: &Method, uri: &Uri) -> Self {
        Self(format!("{method} {uri}").into())
    }

    fn parse(&self) -> Option<(Method, Uri)> {
        let (method, uri) = self.0.split_once(' ')?;
        Some((method.parse().ok()?, uri.parse().ok()?))
    }
}

/// A place for a copy of a request's head, which the check of the request may consume or never return.
pub(crate) enum HeadCopy {
    /// Nobody is told about errors.
    Unwanted,
    Wanted(Mutex<Option<Box<Parts>>>),
}

impl HeadCopy {
    pub(crate) fn wanted() -> Self {
        Self::Wanted(Mutex::default())
    }

    /// Copies the head of the request, which has arrived.
    pub(crate) fn keep(&self, head: &Parts) {
        self.set(|| Some(Box::new(head.clone())));
    }

    /// Drops the copy, because the request was answered and another one may follow.
    pub(crate) fn forget(&self) {
        self.set(|| None);
    }

    fn set(&self, copy: impl FnOnce() -> Option<Box<Parts>>) {
        if let Self::Wanted(place) = self {
            let mut copy = copy();
            std::mem::swap(&mut *place.lock().unwrap_or_else(PoisonError::into_inner), &mut copy);
        }
    }

    /// Returns the copy of the head whose request has arrived and was not answered.
    pub(crate) fn into_head(self) -> Option<Box<Parts>> {
        match self {
            Self::Unwanted => None,
            Self::Wanted(place) => place.into_inner().unwrap_or_else(PoisonError::into_inner),
        }
    }
}
