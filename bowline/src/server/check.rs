//! The answer to a request, over HTTP/1.1 and HTTP/2 alike.
//!
//! ```text
//! request --asks for no WebSocket, and there is a fallback--> fallback ---------> page
//!    |
//!    +--> Terms::check --valid--> RequestCheck (on_request) --Acceptance-------> WebSocket
//!              |                        |
//!              +--------invalid---------+--Rejection, panic, invalid Acceptance-> rejection
//! ```
//!
//! - `acceptance` asks the application about a handshake, and carries its acceptance.
//! - `fallback` lets the application answer everything else.

pub(crate) mod acceptance;
pub(crate) mod fallback;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, Version, header};

use crate::error::{Error, ErrorKind};
use crate::events::{self, HandshakeSubject};
use crate::limits::Limits;
use crate::server::catch_panic::CatchPanic;
use crate::server::check::acceptance::{Admission, Refusal, RequestCheck};
use crate::server::check::fallback::{AfterPage, Fallback};
use crate::server::handshake::{Terms, asks_for_websocket, check_host};
use crate::server::rejection::{Rejection, RejectionReason};

/// The closures of the application that take part in the answer to a request.
#[derive(Clone, Default)]
pub(crate) struct RequestHooks {
    pub(crate) check: RequestCheck,
    pub(crate) fallback: Option<Fallback>,
}

/// The result of an answer, for the server.
#[allow(clippy::large_enum_variant, reason = "the value lives for a moment only")]
pub(crate) enum Answered {
    /// The request opens a WebSocket.
    Admitted(Admission),
    /// The application's fallback has answered a request that asks for no WebSocket.
    Page(AfterPage),
    /// The request has failed.
    Rejected(Error),
}

/// Decides about a request. Returns the decision for the server, and the response for the client.
///
/// If the application panics, the client receives a plain 500.
pub(crate) async fn answer(head: Parts, terms: &Terms, hooks: &RequestHooks) -> (Answered, Response<Bytes>) {
    match &hooks.fallback {
        Some(fallback) if !asks_for_websocket(&head) => {
            let page = match check_host(&head) {
                Ok(()) => fallback.answer(head).await,
                Err(rejection) => Err(rejection.into()),
            };
            return match page {
                Ok((page, after)) => (Answered::Page(after), fit_to_connection(page)),
                Err(Refusal { error, rejection }) => (Answered::Rejected(error), response_of(rejection)),
            };
        }
        _ => {}
    }
    // The application may change the head.
    let (peer, uri) = (head.extensions.get().copied(), head.uri.clone());
    let subject = HandshakeSubject::of_server(peer.as_ref(), &uri);
    let agreeing = async {
        let agreement = terms.check(&head)?;
        hooks.check.decide(head, agreement).await
    };
    match CatchPanic::call(|| agreeing).await {
        Ok(Ok(admission)) => {
            admission.agreement.agreed.announce(subject);
            let response = admission.agreement.response();
            (Answered::Admitted(admission), response)
        }
        Ok(Err(Refusal { error, rejection })) => rejected(subject, error, rejection),
        Err(panic) => {
            let rejection = Rejection::from(StatusCode::INTERNAL_SERVER_ERROR);
            let text = format!("the check of a client's request {panic}");
            let error = Error::with_source(ErrorKind::Handshake, text.clone(), rejection.clone());
            rejected(subject, error, rejection.with_source(text))
        }
    }
}

/// Returns the error and the response for a request that is rejected.
pub(crate) fn rejected(
    subject: HandshakeSubject<'_>,
    error: Error,
    rejection: Rejection,
) -> (Answered, Response<Bytes>) {
    events::handshake_rejected(subject, rejection.status(), &rejection);
    (Answered::Rejected(error), response_of(rejection))
}

fn response_of(rejection: Rejection) -> Response<Bytes> {
    fit_to_connection(rejection.into_response::<String>().map(Into::into))
}

/// Removes all that must fit the body and the connection, which hyper sets itself.
///
/// hyper would send the application's values of these headers even if they are wrong, and panic at a version
/// such as HTTP/3. An answer that comes from another server may have both.
fn fit_to_connection(mut response: Response<Bytes>) -> Response<Bytes> {
    *response.version_mut() = Version::default();
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    response
}

/// Returns the rejection of a head with too many headers.
pub(crate) fn head_over_limit(head: &Parts, limits: &Limits) -> Option<(Answered, Response<Bytes>)> {
    let limit = limits.max_headers;
    if head.headers.len() <= limit {
        return None;
    }
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let rejection =
        Rejection::new(status, "the request has too many headers").because_of(RejectionReason::HeadSize);
    let text = format!("the client's request is over the limit of {limit} headers (Limits::max_headers)");
    let error = Error::with_source(ErrorKind::Handshake, text.clone(), rejection.clone());
    let subject = HandshakeSubject::of_server(head.extensions.get(), &head.uri);
    Some(rejected(subject, error, rejection.with_source(text)))
}

/// Makes a whole response fit for a stream of HTTP/2 or HTTP/3.
pub(crate) fn fit_to_stream(response: Response<Bytes>, is_head: bool) -> Response<Bytes> {
    let (mut head, mut body) = response.into_parts();
    // RFC 9110 6.4.1: these responses have no content. RFC 9110 8.6: nor a length, except to HEAD.
    let is_without = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !is_without {
        head.headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    if is_without || is_head {
        body.clear();
    }
    Response::from_parts(head, body)
}

/// Removes the headers of an HTTP/1.1 connection, which make a message malformed (RFC 9113 8.2.2, RFC 9114
/// 4.2).
pub(crate) fn remove_connection_headers(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}
