//! The server's side of an HTTP/2 connection, which carries many WebSockets (RFC 8441), by h2.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, SendResponse};
use http::request::Parts;
use http::{Method, Response};
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep};

use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::{Deadline, FAR};
use crate::limits::Limits;
use crate::server::check::acceptance::Admission;
use crate::server::check::fallback::AfterPage;
use crate::server::check::{
    Answered, RequestHooks, answer, fit_to_stream, head_over_limit, remove_connection_headers,
};
use crate::server::handshake::{ServerHandshake, Terms};
use crate::server::registry::{Slot, Slots, Usage};
use crate::server::server_error::HeadCopy;
use crate::socket::WebSocket;
use crate::transport::http2::{CONNECTION_WINDOW, FRAME_BUDGET, Http2Receive, Http2Send, Piece, SEND_BUFFER};
use crate::transport::http2_io::{Gathered, Http2Io};
use crate::transport::peer::Peer;
use crate::transport::wake_flag::WakeFlag;
use crate::transport::{Addresses, IoStream, Transport};

/// The first bytes of HTTP/2 (RFC 9113 3.4), with which no request of HTTP/1.1 begins.
const PREFACE: &[u8; 3] = b"PRI";

/// The shortest period for which a connection without WebSockets is kept.
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

/// The proof that a server speaks HTTP/2. Without the feature `http2`, this type has no values.
#[derive(Clone, Copy)]
pub(crate) struct Http2Server;

/// A request that has arrived on an HTTP/2 connection.
pub(crate) struct Http2Request {
    head: Parts,
    receive: Http2Receive,
    respond: SendResponse<Piece>,
    /// The deadline of the handshake, whose time begins on arrival, whatever the request waits for.
    deadline: Deadline,
    slots: Slots,
    usage: Arc<Usage>,
}

/// A request that was accepted.
pub(crate) struct Accepted {
    pub(crate) socket: WebSocket,
    pub(crate) head: Parts,
    pub(crate) slot: Slot,
}

/// The stage of a connection on the way to its end.
///
/// ```text
/// Serving --no use for a period--> Unused --another--> cut off
///    |                                |
///    +-------the server goes down-----+--> Stopping --the last stream has ended--> Closing
///                                             |
///                                             +--no use for a (shorter) period--> cut off
/// ```
///
/// `Unused` and `Stopping` begin with a GOAWAY that lets the client finish. `Closing` lasts until another
/// GOAWAY is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Http2Phase {
    Serving,
    Unused,
    Stopping,
    Closing,
}

/// The number of successive periods in which a connection had no use.
///
/// A period is the time of a handshake. Once the server shuts down, it is the time of a close if that is
/// shorter.
struct IdleTimer {
    periods: u32,
    period: Duration,
    tick: Pin<Box<Sleep>>,
}

impl IdleTimer {
    fn new(limits: &Limits) -> Self {
        let period = limits.handshake_timeout.clamp(SHORTEST_PERIOD, FAR);
        Self { periods: 0, period, tick: Box::pin(sleep(period)) }
    }

    /// Starts counting again, with periods of at most `period`.
    fn hurry(&mut self, period: Duration) {
        self.period = self.period.min(period.max(SHORTEST_PERIOD));
        self.periods = 0;
        self.tick.as_mut().reset(Instant::now() + self.period);
    }

    /// Looks at the clock, and counts. A client that keeps sending can't prevent that by using up the task's
    /// budget.
    fn poll(&mut self, cx: &mut Context<'_>, usage: &Usage) {
        while pin!(unconstrained(&mut self.tick)).poll(cx).is_ready() {
            self.tick.as_mut().reset(Instant::now() + self.period);
            self.periods = if usage.was_used() { 0 } else { self.periods + 1 };
        }
    }

    /// Returns the reason for the end of a connection without requests.
    fn why_ended(&self) -> Error {
        let period = self.period;
        if self.periods == 0 {
            let text = "the client closed the connection without a request";
            return Error::new(ErrorKind::Disconnected, text);
        }
        let text = format!(
            "the client opened no WebSocket on its HTTP/2 connection for {period:?} \
             (Limits::handshake_timeout)"
        );
        Error::new(ErrorKind::Timeout, text)
    }
}

#[expect(clippy::unused_self, reason = "a value is a proof, and has no content")]
impl Http2Server {
    /// Returns `true` if `bytes` are an incomplete beginning of HTTP/2.
    pub(crate) fn may_begin_with(self, bytes: &[u8]) -> bool {
        bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes)
    }

    /// Returns `true` if `bytes` begin like HTTP/2.
    pub(crate) fn begins_with(self, bytes: &[u8]) -> bool {
        bytes.starts_with(PREFACE)
    }

    /// Serves an HTTP/2 connection until it has ended. `begin` is called with each request, and must not
    /// wait.
    ///
    /// The connection stops accepting requests when `stop` completes, or when there was no use for the time
    /// of a handshake: no WebSocket, and no page that was sent. It then ends with the last WebSocket. A
    /// client that does not let it end is cut off: after one more time of a handshake without use or, after
    /// `stop`, the time of a close.
    pub(crate) async fn serve<S: IoStream>(
        self,
        stream: S,
        limits: &Limits,
        deadline: Deadline,
        stop: impl Future<Output = ()>,
        mut begin: impl FnMut(Http2Request),
    ) -> Result<(), Error> {
        let (io, gathered) = Http2Io::new(stream);
        let preface = async { builder(limits).handshake(io).await.map_err(connection_error) };
        let mut stop = pin!(stop);
        let mut preface = pin!(deadline.bound("waiting for the preface of HTTP/2", preface));
        let opening = poll_fn(|cx| match stop.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => gathered.poll(preface.as_mut(), cx).map(Some),
        });
        let Some(opened) = opening.await else { return Ok(()) };
        let usage = Arc::new(Usage::default());
        let slots = Slots::new(limits.max_streams);
        let mut serving = Serving {
            connection: opened?,
            gathered: &gathered,
            limits,
            phase: Http2Phase::Serving,
            idle: IdleTimer::new(limits),
            due: WakeFlag::new(),
            usage,
            slots,
        };
        let mut requested = false;
        loop {
            match poll_fn(|cx| serving.poll_accept(cx, stop.as_mut())).await {
                Some(Ok(request)) => {
                    requested = true;
                    begin(request);
                    // A flood of requests that are reset at once must not keep the tasks from running that
                    // answer them.
                    yield_now().await;
                }
                // The WebSockets of the connection report its end themselves.
                Some(Err(error)) if requested && error.is_io() => return Ok(()),
                Some(Err(error)) if requested && error.is_library() => {
                    let text = format!("a client broke the protocol of HTTP/2: {error}");
                    return Err(Error::with_source(ErrorKind::Protocol, text, error));
                }
                Some(Err(error)) => return Err(connection_error(error)),
                None if requested || serving.is_stopping() => return Ok(()),
                None => return Err(serving.idle.why_ended()),
            }
        }
    }
}

/// A connection that is being served.
struct Serving<'a, S: IoStream> {
    connection: h2::server::Connection<Http2Io<S>, Piece>,
    gathered: &'a Gathered<S>,
    limits: &'a Limits,
    phase: Http2Phase,
    idle: IdleTimer,
    /// The flag of the shutdown and of `idle`, which are rarely due.
    due: WakeFlag,
    usage: Arc<Usage>,
    slots: Slots,
}

impl<S: IoStream> Serving<'_, S> {
    /// Accepts the next request. Returns `None` when the connection has ended, or is to be cut off.
    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Option<Result<Http2Request, h2::Error>>> {
        let is_due = self.due.take(cx);
        if is_due
            && matches!(self.phase, Http2Phase::Serving | Http2Phase::Unused)
            && stop.poll(&mut self.due.context(cx)).is_ready()
        {
            self.phase = Http2Phase::Stopping;
            self.connection.graceful_shutdown();
            self.idle.hurry(self.limits.close_timeout);
        }
        // Reading comes before the look at the clock, which otherwise might judge a client by requests that
        // were not read.
        let next = self.connection.poll_accept(cx);
        self.gathered.write(cx);
        // No stream is open any more, so the client need not agree to the end.
        if self.phase == Http2Phase::Stopping && next.is_pending() && !self.connection.has_streams() {
            self.phase = Http2Phase::Closing;
            self.connection.abrupt_shutdown(Reason::NO_ERROR);
            cx.waker().wake_by_ref();
        }
        if is_due {
            self.idle.poll(&mut self.due.context(cx), &self.usage);
        }
        match (self.idle.periods, self.phase) {
            (0, _) | (1, Http2Phase::Unused) => {}
            (1, Http2Phase::Serving) => {
                self.phase = Http2Phase::Unused;
                self.connection.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            // The drop of the connection ends it at once. Bytes that have not been written are lost.
            _ => return Poll::Ready(None),
        }
        next.map_ok(|(request, respond)| {
            let (head, receive) = request.into_parts();
            let deadline = Deadline::after(self.limits.handshake_timeout);
            let (slots, usage) = (self.slots.clone(), Arc::clone(&self.usage));
            Http2Request { head, receive: Http2Receive::new(receive), respond, deadline, slots, usage }
        })
    }

    /// Returns `true` after the server began to shut down.
    fn is_stopping(&self) -> bool {
        matches!(self.phase, Http2Phase::Stopping | Http2Phase::Closing)
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    let head_size = u32::try_from(limits.head_size).unwrap_or(u32::MAX);
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(head_size)
        .initial_window_size(limits.initial_window_size())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(FRAME_BUDGET)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

impl Http2Request {
    /// Inserts what is known about `peer` into the extensions of the head, and keeps a copy of the head.
    pub(crate) fn describe(&mut self, peer: &Peer, copy: &HeadCopy) {
        peer.describe(&mut self.head.extensions);
        copy.keep(&self.head);
    }

    /// Waits for a slot, as long as the client wants the request and its deadline allows.
    pub(crate) async fn reserve(&mut self) -> Result<Slot, Error> {
        let taking = async { Ok(self.slots.take().await) };
        let waiting = while_wanted(&mut self.respond, &mut self.receive, taking);
        let reserved = self.deadline.bound("waiting for one of Limits::max_streams", waiting).await;
        reserved.inspect_err(|_| self.respond.send_reset(Reason::REFUSED_STREAM))
    }

    /// Refuses the request, which the application does not know.
    pub(crate) fn refuse(mut self) {
        // RFC 9113 8.7: no work was done for the request, so the client may repeat it.
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// Answers the request, and opens the connection. Returns `None` if the application's fallback has
    /// answered.
    pub(crate) async fn exchange(
        self,
        slot: Slot,
        addresses: Addresses,
        terms: &Terms,
        hooks: &RequestHooks,
    ) -> Result<Option<Accepted>, Error> {
        let Self { head, mut receive, mut respond, deadline, usage, .. } = self;
        let is_head = head.method == Method::HEAD;
        let answering = async {
            match head_over_limit(&head, &terms.config.limits) {
                Some(rejected) => Ok(rejected),
                None => Ok(answer(head, terms, hooks).await),
            }
        };
        let answering = while_wanted(&mut respond, &mut receive, answering);
        let (answer, mut response) = deadline.bound("checking the request", answering).await?;
        remove_connection_headers(response.headers_mut());
        match answer {
            Answered::Admitted(Admission { head, agreement }) => {
                let send = respond.send_response(response.map(drop), false).map_err(connection_error)?;
                let send = Http2Send::new(send, Box::new(usage.count_one()));
                let transport = Transport::http2(receive, send, addresses);
                let socket = ServerHandshake::new(agreement).complete(transport, &[]);
                Ok(Some(Accepted { socket, head, slot }))
            }
            Answered::Page(after) => {
                drop(receive);
                let deadline = Deadline::after(terms.config.limits.handshake_timeout);
                deadline.bound("sending the answer", send_page(&mut respond, response, is_head)).await?;
                if after == AfterPage::Keep {
                    usage.note();
                }
                Ok(None)
            }
            Answered::Rejected(error) => {
                // Further bytes are not read. They would take much more memory than their size while the
                // answer waits.
                drop(receive);
                // This fails only if the client does not want the answer any more. Dropping the stream resets
                // it.
                let sending = send_page(&mut respond, response, is_head);
                let _ = deadline.bound("sending the answer", sending).await;
                Err(error)
            }
        }
    }
}

/// Does `work` for a request, which is dropped when the stream or the connection ends.
///
/// Bytes that arrive meanwhile are taken out, as their frames would cost much more memory in the HTTP/2
/// connection.
async fn while_wanted<T>(
    respond: &mut SendResponse<Piece>,
    receive: &mut Http2Receive,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(gone) = respond.poll_reset(cx) {
            return Poll::Ready(Err(gone_before_the_answer(gone)));
        }
        receive.gather(cx);
        work.as_mut().poll(cx)
    })
    .await
}

/// Sends a whole answer, as fast as the client's windows allow.
async fn send_page(
    respond: &mut SendResponse<Piece>,
    response: Response<Bytes>,
    is_head: bool,
) -> Result<(), Error> {
    let broken = |error| Error::of_transport("the client does not receive the answer", error);
    let (response, mut body) = fit_to_stream(response, is_head).into_parts();
    let response = Response::from_parts(response, ());
    let send = respond.send_response(response, body.is_empty()).map_err(connection_error)?;
    if body.is_empty() {
        return Ok(());
    }
    let mut send = Http2Send::new(send, Box::new(()));
    while !body.is_empty() {
        let len = body.len();
        poll_fn(|cx| send.poll_write(cx, len, |count| body.split_to(count))).await.map_err(broken)?;
    }
    send.end().map_err(broken)
}

fn gone_before_the_answer(gone: Result<Reason, h2::Error>) -> Error {
    match gone {
        Ok(reason) => {
            let text = format!("the stream of the request was reset before it was answered, with {reason:?}");
            Error::new(ErrorKind::Disconnected, text)
        }
        Err(error) => {
            let text = "the HTTP/2 connection ended before the request was answered";
            Error::with_source(ErrorKind::Disconnected, text, error)
        }
    }
}

fn connection_error(error: h2::Error) -> Error {
    let kind = match error.get_io() {
        Some(error) => ErrorKind::of_transport(error),
        // The client ends the connection.
        None if error.is_remote() => ErrorKind::Disconnected,
        None => ErrorKind::Handshake,
    };
    Error::with_source(kind, "the HTTP/2 connection of a client failed", error)
}
