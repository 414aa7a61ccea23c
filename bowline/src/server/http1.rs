//! The server's side of an opening handshake over HTTP/1.1, by hyper.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, header};
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
use crate::server::check::fallback::{AfterPage, WholeBody};
use crate::server::check::{Answered, RequestHooks, answer};
use crate::server::handshake::{ServerHandshake, Terms};
use crate::server::server_error::HeadCopy;
use crate::socket::WebSocket;
use crate::transport::peer::Peer;
use crate::transport::rewind::Rewind;
use crate::transport::{IoStream, Transport};

/// The progress of a connection through its requests: any number of pages, and then a handshake.
///
/// The atomics and the lock are for the compiler alone: one task does everything.
#[derive(Default)]
struct Progress {
    begun: AtomicUsize,
    /// The number of requests that the application's fallback has answered.
    pages: AtomicUsize,
    /// The outcome of the request that was no page, and is the last one.
    outcome: OnceLock<Result<Admission, Error>>,
}

impl Progress {
    fn pages(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    /// Returns `true` if a request has arrived and is not answered.
    fn is_answering(&self) -> bool {
        self.outcome.get().is_none() && self.begun.load(Ordering::Relaxed) > self.pages()
    }

    /// Records an answer, and completes its response.
    fn record(&self, answered: Answered, mut response: Response<Bytes>) -> Response<WholeBody> {
        let outcome = match answered {
            Answered::Page(after) => {
                self.pages.fetch_add(1, Ordering::Relaxed);
                if after == AfterPage::Close {
                    close_after(&mut response);
                }
                return response.map(WholeBody::from);
            }
            Answered::Admitted(admission) => Ok(admission),
            Answered::Rejected(error) => {
                close_after(&mut response);
                Err(error)
            }
        };
        let _ = self.outcome.set(outcome);
        response.map(WholeBody::from)
    }

    /// Polls hyper until the connection has no more requests. Each page renews the deadline.
    async fn drive(
        &self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<hyper::Result<()>>,
        limits: &Limits,
        deadline: &mut Deadline,
    ) -> Result<(), Error> {
        loop {
            let pages = self.pages();
            let until_page = poll_fn(|cx| match poll(cx) {
                Poll::Pending if self.pages() > pages => Poll::Ready(Ok(None)),
                polled => polled.map_ok(Some).map_err(|error| http_error(error, limits, self)),
            });
            match deadline.bound("waiting for the request", until_page).await {
                Ok(Some(())) => return Ok(()),
                Ok(None) => {
                    *deadline = Deadline::after(limits.handshake_timeout);
                    // The client may send its requests as fast as they are answered.
                    consume_budget().await;
                }
                Err(error) if error.kind() == ErrorKind::Timeout && self.is_answering() => {
                    return Err(deadline.missed("checking the request"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the request that opens a WebSocket, or `None` if there were only pages.
    fn conclude(self, driven: Result<(), Error>) -> Result<Option<Admission>, Error> {
        let (is_answering, pages) = (self.is_answering(), self.pages());
        match (self.outcome.into_inner(), driven) {
            (Some(Ok(admission)), Ok(())) => Ok(Some(admission)),
            // A rejection is one, even if the client does not wait for it.
            (Some(Err(rejection)), _) => Err(rejection),
            (None, Ok(())) if is_answering => Err(Error::new(ErrorKind::Disconnected, UNANSWERED)),
            (None, Ok(())) if pages > 0 => Ok(None),
            (None, Ok(())) => {
                let text = "the client closed the connection without a request";
                Err(Error::new(ErrorKind::Disconnected, text))
            }
            // hyper has answered what is too large, or is not HTTP.
            (_, Err(error)) if matches!(error.kind(), ErrorKind::Limit | ErrorKind::Handshake) => Err(error),
            // A client may leave after a page, or stay without another request.
            (None, Err(_)) if pages > 0 && !is_answering => Ok(None),
            (_, Err(error)) => Err(error),
        }
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
    mut deadline: Deadline,
    copy: &HeadCopy,
) -> Result<Option<(WebSocket, Parts)>, Error> {
    let progress = Progress::default();
    let service = service_fn(|request: Request<Incoming>| {
        Box::pin(async {
            progress.begun.fetch_add(1, Ordering::Relaxed);
            let (mut head, _body) = request.into_parts();
            // The stream is taken out of hyper's connection, below.
            head.extensions.remove::<OnUpgrade>();
            peer.describe(&mut head.extensions);
            copy.keep(&head);
            let (answered, response) = answer(head, terms, hooks).await;
            if let Answered::Page(_) = answered {
                copy.forget();
            }
            Ok::<_, Infallible>(progress.record(answered, response))
        })
    });
    let limits = &terms.config.limits;
    let mut connection = http1::Builder::new()
        .max_headers(limits.max_headers)
        .max_header_size(limits.head_size)
        .max_buf_size(limits.head_size)
        .serve_connection(TokioIo::new(stream), service);
    let driven = progress.drive(|cx| connection.poll_without_shutdown(cx), limits, &mut deadline).await;
    let http1::Parts { io, read_buf, .. } = connection.into_parts();
    let Rewind { prefix, mut stream } = io.into_inner();
    match progress.conclude(driven) {
        Ok(Some(Admission { head, agreement })) => {
            let leftover = [read_buf, prefix].concat();
            let transport = Transport::with_addresses(stream, peer.addresses);
            Ok(Some((ServerHandshake::new(agreement).complete(transport, &leftover), head)))
        }
        closed => {
            let _ = deadline.bound("closing", linger(&mut stream)).await;
            closed.map(|_| None)
        }
    }
}

/// Announces that the connection ends after a response.
fn close_after(response: &mut Response<Bytes>) {
    response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Closes a stream that carries no WebSocket, in the order that delivers the last response.
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

fn http_error(error: hyper::Error, limits: &Limits, progress: &Progress) -> Error {
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
        Error::new(ErrorKind::Disconnected, if progress.is_answering() { UNANSWERED } else { in_its_head })
    } else {
        let text = "the client's connection broke during the opening handshake";
        let kind = find_cause(&error).map_or(ErrorKind::Io, ErrorKind::of_transport);
        Error::with_source(kind, text, error)
    }
}
