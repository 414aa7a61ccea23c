//! The opening handshake of a case, over HTTP/1.1, HTTP/2 and HTTP/3.

use std::time::Duration;

use bowline::ErrorKind;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::carrier::{Carrier, Incoming};
use super::head::{BODY_KEPT, Pace, Parsed, RequestHead, ResponseHead};
use super::http2::{Http2Client, Http2Response};
use super::http3::{Http3Client, Http3Response};
use super::session::{Below, Session};
use super::transcript::{Direction, Transcript};
use crate::connect::{ConnectError, Dialer, Version};

/// The bytes of a request that are written at a time, if it is slow.
const SLOW: usize = 7;

/// The pause between them, in which the server reads.
const PAUSE: Duration = Duration::from_millis(2);

/// The time for TCP and TLS, as a multiple of the time for a reaction.
const DIALLING: u32 = 2;

/// The outcome of an opening handshake.
pub(crate) enum Opened {
    /// 101, or 2xx over HTTP/2 and HTTP/3.
    Accepted(Box<Session>, ResponseHead),
    /// Another status, with the first KiB of the body.
    Refused(ResponseHead, Vec<u8>, Transcript),
    /// No response: the reason.
    Nothing(NoResponse, Transcript),
}

/// The reason why there is no response.
#[derive(Clone, Debug)]
pub(crate) enum NoResponse {
    /// The connection ended.
    Ended(String),
    /// Bytes that are no response.
    Invalid(String),
    /// Nothing arrived in time.
    Silence,
}

/// Performs an opening handshake with this request.
pub(crate) async fn open(
    dialer: &Dialer,
    request: &RequestHead,
    pace: Pace,
    version: Version,
    wait: Duration,
) -> Result<Opened, ConnectError> {
    let too_long = || ConnectError::Dial("connecting took too long".into());
    if version == Version::Http3 {
        let opening = timeout(wait * DIALLING, dialer.open_http3());
        return match opening.await.map_err(|_| too_long())? {
            Ok(connection) => {
                let client = Http3Client::new(connection, dialer.scheme_and_authority());
                Ok(over_http3(client, request, wait).await)
            }
            // The connection is there, and is none for WebSockets.
            Err(ConnectError::Library(error)) if error.kind() == ErrorKind::Handshake => {
                Ok(Opened::Nothing(NoResponse::Invalid(error.to_string()), Transcript::new()))
            }
            Err(error) => Err(error),
        };
    }
    let stream = timeout(wait * DIALLING, dialer.open(version)).await.map_err(|_| too_long())??;
    if version == Version::Http1 {
        return Ok(over_http1(Carrier::of_stream(stream), request, pace, wait).await);
    }
    let mut tasks = JoinSet::new();
    let connecting = Http2Client::connect(stream, dialer.scheme_and_authority(), &mut tasks);
    let why = match timeout(wait, connecting).await {
        Ok(Ok(client)) if client.accepts_websockets() => {
            return Ok(over_http2(client, tasks, request, wait).await);
        }
        Ok(Ok(_)) => {
            let why = "the server has not set SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3)";
            NoResponse::Invalid(why.into())
        }
        Ok(Err(error)) => NoResponse::Invalid(error),
        Err(_) => NoResponse::Silence,
    };
    Ok(Opened::Nothing(why, Transcript::new()))
}

/// Opens another WebSocket on a connection of HTTP/2 or HTTP/3.
pub(crate) async fn open_sibling(below: &Below, request: &RequestHead, wait: Duration) -> Opened {
    match below {
        Below::Http2(client) => over_http2(client.clone(), JoinSet::new(), request, wait).await,
        Below::Http3(client) => over_http3(client.clone(), request, wait).await,
    }
}

async fn over_http3(client: Http3Client, request: &RequestHead, wait: Duration) -> Opened {
    let mut transcript = Transcript::new();
    let built = match client.build(request) {
        Ok(built) => built,
        Err(error) => return Opened::Nothing(NoResponse::Invalid(error.to_string()), transcript),
    };
    transcript.note(Direction::Sent, format!("HEADERS: {}", request.described(&built)));
    let Http3Response { head, stream } = match timeout(wait, client.send(built)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            transcript.note(Direction::Received, error.to_string());
            return Opened::Nothing(NoResponse::Ended(error.to_string()), transcript);
        }
        Err(_) => return Opened::Nothing(NoResponse::Silence, transcript),
    };
    let carrier = Carrier::of_stream(stream);
    answered(carrier, head, Below::Http3(client), transcript, wait).await
}

async fn over_http2(
    client: Http2Client,
    tasks: JoinSet<()>,
    request: &RequestHead,
    wait: Duration,
) -> Opened {
    let mut transcript = Transcript::new();
    let built = match client.build(request) {
        Ok(built) => built,
        Err(error) => return Opened::Nothing(NoResponse::Invalid(error.to_string()), transcript),
    };
    transcript.note(Direction::Sent, format!("HEADERS: {}", request.described(&built)));
    let Http2Response { head, send, receive } = match timeout(wait, client.send(built, request.body)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            transcript.note(Direction::Received, error.to_string());
            return Opened::Nothing(NoResponse::Ended(error.to_string()), transcript);
        }
        Err(_) => return Opened::Nothing(NoResponse::Silence, transcript),
    };
    let carrier = Carrier::of_http2(send, receive, tasks);
    answered(carrier, head, Below::Http2(client), transcript, wait).await
}

/// Begins a session on the stream of a response, or reads the body of a refusal.
async fn answered(
    mut carrier: Carrier,
    head: ResponseHead,
    below: Below,
    mut transcript: Transcript,
    wait: Duration,
) -> Opened {
    transcript.note(Direction::Received, format!("HEADERS: {}", head.described()));
    if (200..300).contains(&head.status) {
        let mut session = Session::new(carrier, Vec::new(), transcript, wait);
        session.keep(below);
        return Opened::Accepted(Box::new(session), head);
    }
    let body = read_body(&mut carrier, Vec::new(), BODY_KEPT, Instant::now() + wait, &mut transcript).await;
    Opened::Refused(head, body, transcript)
}

async fn over_http1(mut carrier: Carrier, request: &RequestHead, pace: Pace, wait: Duration) -> Opened {
    let mut transcript = Transcript::new();
    let bytes = request.to_bytes();
    transcript.add_text(Direction::Sent, &bytes);
    let deadline = Instant::now() + wait;
    // An error of writing shows in what is read.
    let _ = timeout_at(deadline, write_head(&mut carrier, &bytes, pace)).await;
    let mut buf = Vec::new();
    let (head, size) = loop {
        match read(&mut carrier, deadline, &mut transcript).await {
            Ok(bytes) => buf.extend_from_slice(&bytes),
            Err(reason) => {
                transcript.add_text(Direction::Received, &buf);
                return Opened::Nothing(reason, transcript);
            }
        }
        match ResponseHead::parse(&buf) {
            Parsed::Partial => {}
            Parsed::Complete(head, size) => break (head, size),
            Parsed::Invalid(why) => {
                transcript.add_text(Direction::Received, &buf);
                return Opened::Nothing(NoResponse::Invalid(why), transcript);
            }
        }
    };
    transcript.add_text(Direction::Received, &buf[..size]);
    buf.drain(..size);
    if head.status == 101 {
        return Opened::Accepted(Box::new(Session::new(carrier, buf, transcript, wait)), head);
    }
    let length = head.value("content-length").and_then(|length| length.parse().ok()).unwrap_or(BODY_KEPT);
    let body = read_body(&mut carrier, buf, length, deadline, &mut transcript).await;
    Opened::Refused(head, body, transcript)
}

/// Reads the body of a refusal after `start`, at most the first KiB, as far as it arrives in time.
async fn read_body(
    carrier: &mut Carrier,
    start: Vec<u8>,
    length: usize,
    deadline: Instant,
    transcript: &mut Transcript,
) -> Vec<u8> {
    let mut body = start;
    while body.len() < length.min(BODY_KEPT) {
        let Ok(bytes) = read(carrier, deadline, transcript).await else { break };
        body.extend_from_slice(&bytes);
    }
    body.truncate(BODY_KEPT);
    transcript.add_text(Direction::Received, &body);
    body
}

async fn write_head(carrier: &mut Carrier, bytes: &[u8], pace: Pace) -> std::io::Result<()> {
    match pace {
        Pace::AtOnce => carrier.writer.write(bytes).await,
        Pace::Truncated => carrier.writer.write(&bytes[..bytes.len() / 2]).await,
        Pace::Slow => {
            for piece in bytes.chunks(SLOW) {
                carrier.writer.write(piece).await?;
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        }
    }
}

/// Reads bytes before the response is complete.
async fn read(
    carrier: &mut Carrier,
    deadline: Instant,
    transcript: &mut Transcript,
) -> Result<Vec<u8>, NoResponse> {
    match timeout_at(deadline, carrier.incoming.recv()).await {
        Ok(Some(Incoming::Bytes(bytes))) => Ok(bytes),
        Ok(Some(Incoming::End(end))) => {
            transcript.note(Direction::Received, end.to_string());
            Err(NoResponse::Ended(end.to_string()))
        }
        Ok(None) => Err(NoResponse::Ended("the end of the stream".into())),
        Err(_) => Err(NoResponse::Silence),
    }
}

impl std::fmt::Display for NoResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(end) => write!(f, "{end} instead of a response"),
            Self::Invalid(why) => f.write_str(why),
            Self::Silence => f.write_str("no response in time"),
        }
    }
}
