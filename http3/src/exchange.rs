//! The server's side of one request, for the seam of bowline.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::{Error, ErrorKind, Exchange, Limits, TlsInfo};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use quinn::{RecvStream, SendStream};
use tokio::time::{Instant, Sleep, sleep};

use crate::head::{HeadError, HeadLimits, decode_request, encode_response};
use crate::session::SessionUse;
use crate::stream::{Http3Stream, ReceiveHalf, SendHalf, Side, Unreceived, violation_of};
use crate::wire::ErrorCode;

/// The way back to the client of a request.
pub(crate) struct Http3Exchange {
    send: SendHalf,
    receive: ReceiveHalf,
    /// The next look at the client's interest, once somebody asks.
    next_look: Option<Pin<Box<Sleep>>>,
}

/// The interval between looks at a client that may have stopped reading.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Wraps the halves of a request stream. Until the head is here, nothing was processed (RFC 9114 4.1.1), so a
/// request that is dropped is rejected.
pub(crate) fn begin_request(
    send: SendStream,
    receive: RecvStream,
    user: &SessionUse,
) -> (SendHalf, ReceiveHalf) {
    let mut send = SendHalf::new(send, user.clone());
    let mut receive = ReceiveHalf::new(receive, user.clone(), Side::Server);
    send.abort_code = ErrorCode::REQUEST_REJECTED;
    receive.abort_code = ErrorCode::REQUEST_REJECTED;
    (send, receive)
}

/// Receives the head of a request.
pub(crate) async fn receive_request(
    mut send: SendHalf,
    mut receive: ReceiveHalf,
    limits: Arc<Limits>,
    tls: TlsInfo,
) -> Result<(Request<()>, Http3Exchange), Error> {
    let refused = match receive.receive_section(limits.head_size).await {
        Ok(section) => {
            let head_limits = HeadLimits { size: limits.head_size, headers: limits.max_headers };
            match decode_request(&section, head_limits) {
                Ok(mut request) => {
                    request.extensions_mut().insert(tls);
                    send.abort_code = ErrorCode::REQUEST_CANCELLED;
                    receive.abort_code = ErrorCode::REQUEST_CANCELLED;
                    return Ok((request, Http3Exchange { send, receive, next_look: None }));
                }
                Err(error) => match violation_of(&error) {
                    Some(violation) => return Err(receive.fail(violation)),
                    None => error,
                },
            }
        }
        Err(Unreceived::TooLarge) => HeadError::Section(crate::qpack::SectionError::TooLarge),
        Err(Unreceived::Failed(error)) => {
            send.abort_code = ErrorCode::REQUEST_INCOMPLETE;
            return Err(error);
        }
    };
    refuse(send, receive, &refused, &limits).await
}

/// Answers a request whose head is not acceptable, and returns the error about it.
async fn refuse<T>(
    mut send: SendHalf,
    mut receive: ReceiveHalf,
    refused: &HeadError,
    limits: &Limits,
) -> Result<T, Error> {
    let text = match refused {
        HeadError::Section(_) => {
            format!("the head of a client's request is over {} bytes (Limits::head_size)", limits.head_size)
        }
        HeadError::TooMany => {
            format!("the client's request has more than {} headers (Limits::max_headers)", limits.max_headers)
        }
        HeadError::Malformed(why) => {
            // RFC 9114 4.1.2: a malformed request is an error of its stream.
            send.abort_code = ErrorCode::MESSAGE_ERROR;
            receive.stop(ErrorCode::MESSAGE_ERROR);
            return Err(Error::new(
                ErrorKind::Handshake,
                format!("the client's request is malformed: {why}"),
            ));
        }
    };
    // RFC 9114 4.2.2: a head that is too large is answered with 431.
    receive.stop(ErrorCode::NO_ERROR);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    // The client may have gone already.
    if send.send_head(&encode_response(&response)).await.is_ok() {
        send.finish();
    }
    Err(Error::new(ErrorKind::Limit, text))
}

impl Exchange for Http3Exchange {
    type Stream = Http3Stream;

    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Self { send, receive, next_look } = self;
        let gone = |error: Error| io::Error::new(io::ErrorKind::ConnectionReset, error.to_string());
        // Bytes that have arrived wait for the WebSocket.
        if let Poll::Ready(Err(error)) = receive.poll_fill(cx) {
            return Poll::Ready(gone(error));
        }
        // quinn's own futures of a stop and of a reset would leave something behind for each request, for as
        // long as the connection lives.
        let next_look = next_look.get_or_insert_with(|| Box::pin(sleep(LOOK_INTERVAL)));
        while next_look.as_mut().poll(cx).is_ready() {
            if let Err(error) = send.look(cx) {
                return Poll::Ready(gone(error));
            }
            next_look.as_mut().reset(Instant::now() + LOOK_INTERVAL);
        }
        Poll::Pending
    }

    async fn open(self, response: Response<()>) -> io::Result<Self::Stream> {
        let Self { mut send, receive, .. } = self;
        send.send_head(&encode_response(&response)).await?;
        Ok(Http3Stream::new(send, receive))
    }

    async fn respond(self, response: Response<Bytes>) -> io::Result<()> {
        let Self { mut send, mut receive, .. } = self;
        // RFC 9114 4.1: after a whole response, the rest of a request is not needed.
        receive.stop(ErrorCode::NO_ERROR);
        send.send_head(&encode_response(&response)).await?;
        send.send_body(response.body()).await?;
        Ok(())
    }
}
