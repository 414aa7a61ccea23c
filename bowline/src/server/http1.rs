//! The server's side of an opening handshake over HTTP/1.1, by hyper.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use http::request::Parts;
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::coop::consume_budget;

use crate::error::{Error, ErrorKind, find_cause};
use crate::handshake::deadline::Deadline;
use crate::limits::Limits;
use crate::server::check::acceptance::Admission;
use crate::server::check::fallback::WholeBody;
use crate::server::check::{Answered, RequestHooks, answer};
use crate::server::handshake::{ServerHandshake, Terms};
use crate::server::server_error::HeadCopy;
use crate::socket::WebSocket;
use crate::transport::peer::Peer;
use crate::transport::rewind::Rewind;
use crate::transport::{IoStream, Transport};

/// The requests of a connection, counted.
#[derive(Default)]
struct RequestCount {
    begun: AtomicUsize,
    /// The number of requests that the application's fallback has answered.
    pages: AtomicUsize,
}

impl RequestCount {
    fn pages(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    /// Returns `true` if a request has arrived and is not answered.
    fn is_answering(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > self.pages()
    }

    /// Returns `true` if pages were sent, and no request has arrived since.
    fn is_between_pages(&self) -> bool {
        self.pages() > 0 && !self.is_answering()
    }
}

const UNANSWERED: &str = "the client closed the connection before its request was answered";

/// Reads and answers requests, until one of them opens the connection or is rejected.
///
/// The extensions of each head contain what is known about `peer`. Returns `None` if the application's
/// fallback has answered all requests, and no other followed. Each of its answers renews the deadline, by
/// which the answer is to be sent and the next request to be answered.
pub(crate) async fn exchange<S: IoStream>(
    stream: Rewind<S>,
    peer: Peer,
    terms: &Terms,
    hooks: &RequestHooks,
    deadline: Deadline,
    copy: &HeadCopy,
) -> Result<Option<(WebSocket, Parts)>, Error> {
    let (answered, count) = (OnceLock::new(), RequestCount::default());
    let service = service_fn(|request: Request<Incoming>| {
        Box::pin(async {
            count.begun.fetch_add(1, Ordering::Relaxed);
            let (mut head, _body) = request.into_parts();
            // The stream is taken out of hyper's connection, below.
            head.extensions.remove::<OnUpgrade>();
            peer.describe(&mut head.extensions);
            copy.keep(&head);
            let (answer, mut response) = answer(head, terms, hooks).await;
            match answer {
                Answered::Page => {
                    copy.forget();
                    count.pages.fetch_add(1, Ordering::Relaxed);
                }
                Answered::Admitted(admission) => {
                    let _ = answered.set(Ok(admission));
                }
                Answered::Rejected(error) => {
                    response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
                    let _ = answered.set(Err(error));
                }
            }
            Ok::<_, Infallible>(response.map(WholeBody::from))
        })
    });
    let limits = &terms.config.limits;
    let mut connection = http1::Builder::new()
        .max_headers(limits.max_headers)
        .max_header_size(limits.head_size)
        .max_buf_size(limits.head_size)
        .serve_connection(TokioIo::new(stream), service);
    let mut deadline = deadline;
    let exchanged = loop {
        let pages = count.pages();
        let until_page = poll_fn(|cx| {
            let polled = connection.poll_without_shutdown(cx).map(Some);
            if polled.is_pending() && count.pages() > pages { Poll::Ready(None) } else { polled }
        });
        let until_page =
            async { until_page.await.transpose().map_err(|error| http_error(error, limits, &count)) };
        match deadline.bound("waiting for the request", until_page).await {
            Ok(None) => deadline = Deadline::after(limits.handshake_timeout),
            Ok(Some(())) => break Ok(()),
            Err(error) if error.kind() == ErrorKind::Timeout && count.is_answering() => {
                break Err(deadline.missed("checking the request"));
            }
            Err(error) => break Err(error),
        }
    };
    let parts = connection.into_parts();
    let Rewind { prefix, mut stream } = parts.io.into_inner();
    let leftover = [parts.read_buf, prefix].concat();
    match (answered.into_inner(), exchanged) {
        (Some(Ok(Admission { head, agreement })), Ok(())) => {
            let transport = Transport::with_addresses(stream, peer.addresses);
            Ok(Some((ServerHandshake::new(agreement).complete(transport, &leftover), head)))
        }
        (Some(Err(error)), Ok(())) => {
            let _ = deadline.bound("closing", linger(&mut stream)).await;
            Err(error)
        }
        (None, Ok(())) if count.pages() > 0 => {
            let _ = deadline.bound("closing", linger(&mut stream)).await;
            Ok(None)
        }
        (None, Ok(())) => {
            let none = "the client closed the connection without a request";
            Err(Error::new(ErrorKind::Disconnected, if count.is_answering() { UNANSWERED } else { none }))
        }
        (_, Err(error)) => {
            // hyper has answered with 431 or 400.
            let is_answered = matches!(error.kind(), ErrorKind::Limit | ErrorKind::Handshake);
            let is_idle = !is_answered && count.is_between_pages();
            if is_answered || is_idle {
                let _ = deadline.bound("closing", linger(&mut stream)).await;
            }
            // A client may leave after a page, or stay without another request.
            if is_idle { Ok(None) } else { Err(error) }
        }
    }
}

/// Closes a stream after a rejection, in the order that delivers the response.
///
/// TCP resets a socket that is closed with unread bytes, and a reset may overtake the response. So the
/// writing side is shut down first, and the unread bytes are discarded until the client closes its side.
async fn linger(stream: &mut impl IoStream) -> Result<(), Error> {
    let mut scratch = [0; 512];
    let mut open = stream.shutdown().await.is_ok();
    while open {
        open = stream.read(&mut scratch).await.is_ok_and(|count| count > 0);
        // Without this, a stream that is always ready would occupy the thread, and the deadline would not be
        // polled.
        consume_budget().await;
    }
    Ok(())
}

fn http_error(error: hyper::Error, limits: &Limits, count: &RequestCount) -> Error {
    if error.is_parse_too_large() {
        let (size, headers) = (limits.head_size, limits.max_headers);
        let text = format!(
            "the request's head is over the limits of {size} bytes (Limits::head_size) and {headers} \
             headers (Limits::max_headers)"
        );
        Error::with_source(ErrorKind::Limit, text, error)
    } else if error.is_parse() {
        Error::with_source(ErrorKind::Handshake, "the client's request is not HTTP/1.1", error)
    } else if error.is_incomplete_message() {
        let in_its_head = "the client closed the connection in the middle of its request";
        Error::new(ErrorKind::Disconnected, if count.is_answering() { UNANSWERED } else { in_its_head })
    } else {
        let text = "the client's connection broke during the opening handshake";
        let kind = find_cause(&error).map_or(ErrorKind::Io, ErrorKind::of_transport);
        Error::with_source(kind, text, error)
    }
}
