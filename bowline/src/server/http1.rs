//! The server's side of an opening handshake over HTTP/1.1, by hyper.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::OnceLock;

use bowline_proto::Role;
use http::request::Parts;
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::coop::consume_budget;

use crate::connection::parts::ConnectionParts;
use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::Deadline;
use crate::limits::Limits;
use crate::server::check::{RequestCheck, answer};
use crate::server::handshake::Terms;
use crate::server::server_error::HeadCopy;
use crate::socket::WebSocket;
use crate::transport::peer::Peer;
use crate::transport::rewind::Rewind;
use crate::transport::{IoStream, Transport};

/// Reads a request, answers it, and opens the connection.
///
/// The extensions of the head contain what is known about `peer`.
pub(crate) async fn exchange<S: IoStream>(
    stream: Rewind<S>,
    peer: Peer,
    terms: &Terms,
    check: &RequestCheck,
    deadline: Deadline,
    copy: &HeadCopy,
) -> Result<(WebSocket, Parts), Error> {
    let answered = OnceLock::new();
    let service = service_fn(|request: Request<Incoming>| {
        Box::pin(async {
            let (mut head, _body) = request.into_parts();
            // The stream is taken out of hyper's connection, below.
            head.extensions.remove::<OnUpgrade>();
            peer.describe(&mut head.extensions);
            copy.keep(&head);
            let (answer, mut response) = answer(head, terms, check).await;
            if answer.is_err() {
                response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
            }
            // The connection carries one request: a rejection closes it.
            let _ = answered.set(answer);
            Ok::<_, Infallible>(response)
        })
    });
    let limits = &terms.config.limits;
    let mut connection = http1::Builder::new()
        .max_headers(limits.max_headers)
        .max_header_size(limits.head_size)
        .max_buf_size(limits.head_size)
        .serve_connection(TokioIo::new(stream), service);
    let exchange = poll_fn(|cx| connection.poll_without_shutdown(cx));
    let exchange = async { exchange.await.map_err(|error| http_error(error, limits)) };
    let exchanged = deadline.bound("waiting for the request", exchange).await;
    let parts = connection.into_parts();
    let Rewind { prefix, mut stream } = parts.io.into_inner();
    let leftover = [parts.read_buf, prefix].concat();
    if let Err(error) = exchanged {
        if matches!(error.kind(), ErrorKind::Limit | ErrorKind::Handshake) {
            // hyper has answered with 431 or 400.
            let _ = deadline.bound("closing", linger(&mut stream)).await;
        }
        return Err(error);
    }
    match answered.into_inner() {
        Some(Ok((head, agreement))) => {
            let transport = Transport::with_addresses(stream, peer.addresses);
            let socket = WebSocket::open(ConnectionParts {
                transport,
                role: Role::Server,
                leftover: &leftover,
                config: &terms.config,
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

fn http_error(error: hyper::Error, limits: &Limits) -> Error {
    if error.is_parse_too_large() {
        let (size, headers) = (limits.head_size, limits.max_headers);
        let text = format!(
            "the request's head is over the limits of {size} bytes (Limits::head_size) and {headers} \
             headers (Limits::max_headers)"
        );
        Error::with_source(ErrorKind::Limit, text, error)
    } else if error.is_parse() {
        Error::with_source(ErrorKind::Handshake, "the client's request is not HTTP/1.1", error)
    } else {
        Error::with_source(ErrorKind::Io, "the client's connection broke during the opening handshake", error)
    }
}
