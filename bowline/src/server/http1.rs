//! The server's side of an opening handshake over a stream.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bowline_proto::Role;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::coop::consume_budget;

use crate::connection::parts::{Config, ConnectionParts};
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::handshake::deadline::Deadline;
use crate::limits::Limits;
use crate::server::catch_panic::CatchPanic;
use crate::server::handshake::{Agreement, Terms};
use crate::server::rejection::Rejection;
use crate::socket::WebSocket;
use crate::transport::rewind::Begun;
use crate::transport::{Addresses, Stream, Transport};

/// What an application decides about a request, before it is accepted.
#[derive(Clone)]
pub(crate) struct Check(Arc<dyn Fn(Parts) -> Checking + Send + Sync>);

struct Checking(Pin<Box<dyn Future<Output = Result<Parts, Rejection>> + Send>>);

impl Check {
    pub(crate) fn new<F, Fut>(check: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Parts, Rejection>> + Send + 'static,
    {
        Self(Arc::new(move |head| Checking(Box::pin(check(head)))))
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a closure")
    }
}

/// Reads a request, answers it, and opens the connection that it asks for.
///
/// The extensions of the head have the address of the client, if it is known.
pub(crate) async fn shake_hands<S: Stream>(
    stream: Begun<S>,
    addresses: Addresses,
    terms: &Terms,
    config: &Config,
    check: Option<&Check>,
    deadline: Deadline,
) -> Result<(WebSocket, Parts), Error> {
    let answered = OnceLock::new();
    let service = service_fn(|request: Request<Incoming>| {
        Box::pin(async {
            let (mut head, _body) = request.into_parts();
            // We take the stream from hyper ourselves.
            head.extensions.remove::<OnUpgrade>();
            if let Some(peer) = addresses.peer {
                head.extensions.insert(peer);
            }
            let (answer, mut response) = answer(head, terms, check).await;
            if answer.is_err() {
                response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
            }
            // There is no second request: a rejection closes the connection.
            let _ = answered.set(answer);
            Ok::<_, Infallible>(response)
        })
    });
    let limits = &config.limits;
    let mut connection = http1::Builder::new()
        .max_headers(limits.max_headers)
        .max_header_size(limits.head_size)
        .max_buf_size(limits.head_size)
        .serve_connection(TokioIo::new(stream), service);
    let exchange = poll_fn(|cx| connection.poll_without_shutdown(cx));
    let exchange = async { exchange.await.map_err(|error| http_error(error, limits)) };
    let exchanged = deadline.bound("waiting for the request", exchange).await;
    let parts = connection.into_parts();
    let Begun { first, rest: mut stream } = parts.io.into_inner();
    let leftover = [parts.read_buf, first].concat();
    if let Err(error) = exchanged {
        if matches!(error.kind(), ErrorKind::Limit | ErrorKind::Handshake) {
            // hyper has answered 431 or 400.
            let _ = deadline.bound("closing", linger(&mut stream)).await;
        }
        return Err(error);
    }
    match answered.into_inner() {
        Some(Ok((head, agreement))) => {
            let transport = Transport::with_addresses(stream, addresses);
            let socket = WebSocket::open(ConnectionParts {
                transport,
                role: Role::Server,
                leftover: &leftover,
                config,
                negotiated: agreement.agreed,
            });
            Ok((socket, head))
        }
        Some(Err(error)) => {
            let _ = deadline.bound("closing", linger(&mut stream)).await;
            Err(error)
        }
        None => {
            Err(Error::new(ErrorKind::Disconnected, "the client closed the connection without a request"))
        }
    }
}

/// What becomes of a request, and what to tell the client. If the application panics, it is not told more than that.
pub(crate) async fn answer(
    head: Parts,
    terms: &Terms,
    check: Option<&Check>,
) -> (Result<(Parts, Agreement), Error>, Response<String>) {
    let agreeing = async {
        let agreement = terms.check(&head)?;
        let head = match check {
            Some(check) => check.0(head).0.await?,
            None => head,
        };
        Ok((head, agreement))
    };
    match CatchPanic::call(|| agreeing).await {
        Ok(Ok((head, agreement))) => {
            agreement.agreed.announce(Role::Server);
            let response = agreement.response();
            (Ok((head, agreement)), response)
        }
        Ok(Err(rejection)) => rejected("the client's request was rejected".to_owned(), rejection),
        Err(panic) => {
            let rejection = Rejection::from(StatusCode::INTERNAL_SERVER_ERROR);
            rejected(format!("the check of a client's request {panic}"), rejection)
        }
    }
}

/// Says the same to both sides.
pub(crate) fn rejected<T>(text: String, rejection: Rejection) -> (Result<T, Error>, Response<String>) {
    events::handshake_rejected(Role::Server, rejection.status(), &rejection);
    let mut response: Response<String> = rejection.clone().into_response();
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        // hyper knows better, which would send what the application says, whatever the body is.
        response.headers_mut().remove(name);
    }
    (Err(Error::with_source(ErrorKind::Handshake, text, rejection)), response)
}

/// Ends a stream after a rejection. If we closed it with unread bytes in it, TCP would reset it, and the client might
/// never see the response.
async fn linger(stream: &mut impl Stream) -> Result<(), Error> {
    let mut scratch = [0; 512];
    let mut open = stream.shutdown().await.is_ok();
    while open {
        open = stream.read(&mut scratch).await.is_ok_and(|count| count > 0);
        // A stream that is always ready would keep the thread, and the deadline would never come.
        consume_budget().await;
    }
    Ok(())
}

fn http_error(error: hyper::Error, limits: &Limits) -> Error {
    if error.is_parse_too_large() {
        let (size, headers) = (limits.head_size, limits.max_headers);
        let text = format!(
            "the request's head is over the limits of {size} bytes (Limits::head_size) and {headers} headers \
             (Limits::max_headers)"
        );
        Error::with_source(ErrorKind::Limit, text, error)
    } else if error.is_parse() {
        Error::with_source(ErrorKind::Handshake, "the client's request is not HTTP/1.1", error)
    } else {
        Error::with_source(ErrorKind::Io, "the connection broke during the opening handshake", error)
    }
}
