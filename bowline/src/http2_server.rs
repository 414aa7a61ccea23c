//! The requests of one HTTP/2 connection, as its server (RFC 8441).

use std::future::{Future, poll_fn};
use std::pin::pin;

use bowline_proto::Role;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::header::{CONNECTION, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{Response, StatusCode};
use tokio::task::coop::consume_budget;
use tokio::time::{MissedTickBehavior, interval};

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::http2_stream::{CONNECTION_WINDOW, FRAME_BUDGET, Http2Receive, Http2Send, SEND_BUFFER};
use crate::limits::{Config, Limits};
use crate::rejection::Rejection;
use crate::server_exchange::{Check, answer, rejected};
use crate::server_handshake::Terms;
use crate::transport::{Addresses, Stream, Transport};
use crate::websocket::WebSocket;

/// A request that has arrived.
pub(crate) struct Incoming {
    head: Parts,
    receive: RecvStream,
    respond: SendResponse<Bytes>,
}

/// Serves an HTTP/2 connection until it has ended: `begin` is called for each request, and must not wait.
///
/// When `stop` is ready, or nobody has used the connection for the time of a handshake, no more requests are accepted, and
/// it ends with the last of them.
pub(crate) async fn serve<S: Stream>(
    stream: S,
    limits: &Limits,
    deadline: Deadline,
    stop: impl Future<Output = ()>,
    mut begin: impl FnMut(Incoming),
) -> Result<(), Error> {
    let preface = async { builder(limits).handshake(stream).await.map_err(connection_error) };
    let mut connection = deadline.bound("waiting for the preface of HTTP/2", preface).await?;
    let (mut stop, mut stopping) = (pin!(stop), false);
    let mut tick = interval(limits.handshake_timeout);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let (mut used, mut requested) = (false, false);
    loop {
        let next = poll_fn(|cx| {
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                connection.graceful_shutdown();
            }
            while tick.poll_tick(cx).is_ready() {
                let idle = !std::mem::take(&mut used) && !connection.has_streams();
                if idle && !stopping {
                    stopping = true;
                    connection.graceful_shutdown();
                }
            }
            connection.poll_accept(cx)
        });
        match next.await {
            Some(Ok((request, respond))) => {
                (used, requested) = (true, true);
                let (head, receive) = request.into_parts();
                begin(Incoming { head, receive, respond });
                // A flood of requests that are reset at once must not keep those from running that answer them.
                consume_budget().await;
            }
            // What its WebSockets hear of need not be said twice.
            Some(Err(error)) if requested && error.is_io() => return Ok(()),
            Some(Err(error)) => return Err(connection_error(error)),
            None if requested => return Ok(()),
            None => {
                let text = "the client closed the connection without a request";
                return Err(Error::new(ErrorKind::Disconnected, text));
            }
        }
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    let head_size = u32::try_from(limits.head_size).unwrap_or(u32::MAX);
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(head_size)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(FRAME_BUDGET)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

impl Incoming {
    /// Answers the request, and opens the connection that it asks for.
    ///
    /// The extensions of the head have the address of the client.
    pub(crate) async fn shake_hands(
        self,
        addresses: Addresses,
        terms: &Terms,
        config: &Config,
        check: Option<&Check>,
    ) -> Result<(WebSocket, Parts), Error> {
        let Self { mut head, receive, mut respond } = self;
        let deadline = Deadline::after(config.limits.handshake_timeout);
        if let Some(peer) = addresses.peer {
            head.extensions.insert(peer);
        }
        let answering = async {
            if head.headers.len() > config.limits.headers {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                let rejection = Rejection::new(status, "the request has too many headers");
                return Ok((Err(rejection.clone()), rejection.into_response()));
            }
            Ok(answer(head, terms, check).await)
        };
        let (answer, response) = deadline.bound("checking the request", answering).await?;
        let (mut response, body) = response.into_parts();
        remove_connection_headers(&mut response.headers);
        let is_last = answer.is_err() && body.is_empty();
        let response = Response::from_parts(response, ());
        let mut send = respond.send_response(response, is_last).map_err(connection_error)?;
        match answer {
            Ok((head, agreement)) => {
                let (receive, send) = (Http2Receive::new(receive), Http2Send::new(send, None));
                let transport = Transport::http2(receive, send, addresses);
                Ok((WebSocket::open(transport, Role::Server, &[], config, agreement.agreed), head))
            }
            Err(rejection) => {
                if !is_last {
                    // It fails only if the client does not want the answer any more.
                    let _ = send.send_data(body.into(), true);
                }
                Err(rejected(rejection))
            }
        }
    }
}

/// RFC 9113 8.2.2: headers that are about an HTTP/1.1 connection make a message malformed.
fn remove_connection_headers(headers: &mut HeaderMap) {
    for name in [CONNECTION, UPGRADE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

fn connection_error(error: h2::Error) -> Error {
    let kind = if error.is_io() { ErrorKind::Io } else { ErrorKind::Handshake };
    Error::with_source(kind, "the HTTP/2 connection of a client failed", error)
}
