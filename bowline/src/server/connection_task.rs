//! The task of a server's connection, from its first byte to its end.

pub(crate) mod exchange;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bowline_proto::CloseCode;
use http::request::Parts;

use crate::error::{Error, ErrorKind};
use crate::events::{HandlerSpan, HandshakeSubject};
use crate::handshake::deadline::Deadline;
use crate::server::acceptor::Acceptor;
use crate::server::catch_panic::{CatchPanic, catch};
use crate::server::check::RequestHooks;
use crate::server::check::fallback::AfterPage;
use crate::server::handler::Handler;
use crate::server::http1;
use crate::server::http2::{Accepted, Http2Request, Http2Server};
use crate::server::registry::{
    LentPermit, LoadLimits, OpenRegistration, Permit, Place, Registration, Registry, Shutdown, Slot,
};
use crate::server::rejection::{Rejection, RejectionReason};
use crate::server::server_error::{HeadCopy, RequestLine, ServerError};
use crate::socket::WebSocket;
use crate::transport::alpn::Alpn;
use crate::transport::peer::Peer;
use crate::transport::rewind::Rewind;
use crate::transport::tls::ServerTls;
use crate::transport::{IoStream, limit_unsent, send_at_once};

/// The options of a server, which its clones share.
#[derive(Clone, Default)]
pub(crate) struct ServerOptions {
    pub(crate) acceptor: Acceptor,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) http2: Option<Http2Server>,
    pub(crate) hooks: RequestHooks,
    pub(crate) on_error: Option<Arc<dyn ReportError>>,
    pub(crate) load: LoadLimits,
    /// The shutdown. Without one, the server runs for ever.
    pub(crate) shutdown: Option<Shutdown>,
}

impl ServerOptions {
    /// Fits the protocols of the TLS handshake to the versions of HTTP.
    pub(crate) fn fit(&mut self) {
        let protocols: &[Alpn] =
            if self.http2.is_some() { &[Alpn::Http2, Alpn::Http1] } else { &[Alpn::Http1] };
        self.tls = self.tls.take().map(|tls| tls.with_protocols(protocols));
    }

    /// Returns an error if an option is invalid.
    pub(crate) fn validate(&self) -> io::Result<()> {
        self.acceptor.validate()?;
        self.load.validate()?;
        self.shutdown.as_ref().map_or(Ok(()), |shutdown| shutdown.plan.options.validate())?;
        Ok(())
    }
}

/// A closure that is called with errors.
pub(crate) trait ReportError: Fn(ServerError) + Send + Sync {}

impl<F: Fn(ServerError) + Send + Sync> ReportError for F {}

/// The state that all connections of a call share.
pub(crate) struct ServerState<H> {
    pub(crate) options: Arc<ServerOptions>,
    pub(crate) handler: H,
    pub(crate) registry: Arc<Registry>,
}

impl<H> ServerState<H> {
    /// Reports an error, which is made only if the application wants it.
    pub(crate) fn report(&self, error: impl FnOnce() -> ServerError) {
        if let Some(on_error) = &self.options.on_error {
            let error = error();
            // A panic of the closure can't be reported, and is no reason to end more than this call.
            let _ = catch(|| on_error(error));
        }
    }

    /// Decides about a connection that was just accepted. Returns its permit, if it needs one now, or the
    /// reason to close it at once.
    pub(crate) fn admit(&self, peer: Option<SocketAddr>) -> Result<Option<Permit>, RejectionReason> {
        let load = &self.registry.load;
        let no_permit = |reason| if load.may_answer() { Ok(None) } else { Err(reason) };
        load.admit(&self.options.load, peer).or_else(no_permit)
    }

    /// Counts and reports a connection or a request that the limits on the load refuse.
    pub(crate) fn refuse(&self, reason: RejectionReason, peer: Option<SocketAddr>, head: Option<Box<Parts>>) {
        if let Some(error) = self.registry.load.refuse(reason, &self.options.load) {
            self.report(|| ServerError::of_opening(peer, head, error));
        }
    }

    /// Returns the closures that answer a request in `place`. The limits on the load come before the
    /// application's check, and end connections beyond them after a page.
    fn hooks(&self, place: &Place, peer: Option<SocketAddr>, carrier: Carrier) -> RequestHooks {
        let ServerOptions { hooks, load: limits, .. } = &*self.options;
        if !limits.any() {
            return hooks.clone();
        }
        let (load, limits) = (Arc::clone(&self.registry.load), *limits);
        let admit = {
            let place = place.clone();
            move || {
                if let Carrier::Multiplexed(_) = carrier {
                    load.take_handshake(&limits, Duration::ZERO)?;
                }
                place.admit(&limits, peer)
            }
        };
        let place = place.clone();
        let after_page = move || match carrier {
            Carrier::Http1 if place.admit(&limits, peer).is_ok() => AfterPage::Keep,
            Carrier::Http1 => AfterPage::Close,
            Carrier::Multiplexed(after_page) => after_page,
        };
        let check = hooks.check.after(move || admit().map_err(Rejection::of_load));
        let fallback = hooks.fallback.as_ref().map(|fallback| fallback.with_end(after_page));
        RequestHooks { check, fallback }
    }

    /// Returns a place for a copy of the head, if errors are reported.
    fn head_copy(&self) -> HeadCopy {
        if self.options.on_error.is_some() { HeadCopy::wanted() } else { HeadCopy::Unwanted }
    }
}

/// The connection on which a request arrives, as far as the limits on the load are concerned.
#[derive(Clone, Copy)]
enum Carrier {
    /// A connection whose handshake was counted when it was accepted. Each page asks for a permit again, and
    /// the connection ends without one.
    Http1,
    /// A connection with many requests, which are counted one by one. It has a permit from the beginning, or
    /// pages do not prolong its life.
    Multiplexed(AfterPage),
}

/// An opening handshake that has failed.
struct OpeningFailure {
    reason: RejectionReason,
    error: Error,
}

impl OpeningFailure {
    fn of_tls(error: Error) -> Self {
        let reason = match error.kind() {
            ErrorKind::Timeout => RejectionReason::Timeout,
            ErrorKind::Disconnected => RejectionReason::Disconnected,
            _ => RejectionReason::Tls,
        };
        Self { reason, error }
    }
}

impl From<Error> for OpeningFailure {
    fn from(error: Error) -> Self {
        Self { reason: RejectionReason::of(&error), error }
    }
}

/// A connection whose handshake is done, and whose handler has not been called.
pub(crate) struct Established {
    socket: WebSocket,
    head: Parts,
    span: HandlerSpan,
    registration: OpenRegistration,
    /// The slot by which a connection with many streams counts the WebSocket.
    slot: Option<Slot>,
}

/// The result of the first bytes of a connection.
#[allow(clippy::large_enum_variant, reason = "the value lives for a moment only")]
enum Arrived {
    WebSocket(WebSocket, Parts),
    /// Requests that asked for no WebSocket, and were answered.
    Pages,
    Http2(Http2Server, Box<dyn IoStream>, Peer),
}

impl<H> ServerState<H> {
    /// Does all that precedes the handler. Returns `None` if that fails, and also after the end of an HTTP/2
    /// connection, whose streams have tasks of their own.
    pub(crate) async fn establish<M: 'static, S: IoStream>(
        self: Arc<Self>,
        registration: Registration,
        stream: S,
        peer: Option<SocketAddr>,
    ) -> Option<Established>
    where
        H: Handler<M>,
    {
        let peer = Peer::of_accepted(&stream, peer);
        let deadline = Deadline::after(self.options.acceptor.terms().config.limits.handshake_timeout);
        // A box of its own, because combinators hold their futures twice.
        let copy = self.head_copy();
        let address = peer.addresses.peer;
        let hooks = self.hooks(registration.place(), address, Carrier::Http1);
        let arriving = Box::pin(self.handshake(stream, peer, &hooks, deadline, &copy));
        let arrived = self.unless_stopping(arriving).await?;
        let arrived = self.or_report(arrived, address, copy)?;
        match arrived {
            Arrived::WebSocket(socket, head) => Some(self.established(registration, socket, head)),
            Arrived::Pages => None,
            Arrived::Http2(http2, stream, peer) => {
                // The HTTP/2 connection is registered until its end.
                let permit = registration.place().take_permit().map(LentPermit::new);
                Box::pin(self.serve_http2(http2, stream, peer, permit, deadline)).await;
                None
            }
        }
    }

    /// Does the TLS handshake, if there is one, and the opening handshake over HTTP/1.1. Returns early for
    /// HTTP/2.
    async fn handshake<S: IoStream>(
        &self,
        stream: S,
        peer: Peer,
        hooks: &RequestHooks,
        deadline: Deadline,
        copy: &HeadCopy,
    ) -> Result<Arrived, OpeningFailure> {
        // The following takes several KiB per connection, which only clients that send something receive.
        let mut stream = Rewind::new(stream);
        let first = poll_fn(|cx| stream.poll_read_ahead(cx).map_err(broken));
        deadline.bound("waiting for the request", first).await?;
        if let Some(config) = &self.options.tls {
            // A box, because the TLS handshake is much larger than all that follows.
            let handshake = async {
                send_at_once(stream.stream.tcp());
                limit_unsent(stream.stream.tcp(), self.options.acceptor.terms().config.limits.unsent);
                let accepting = config.accept(stream);
                let (stream, chosen, tls) = deadline
                    .bound("doing the TLS handshake", accepting)
                    .await
                    .map_err(OpeningFailure::of_tls)?;
                let peer = Peer { tls, ..peer };
                if let (Some(http2), Alpn::Http2) = (self.options.http2, chosen) {
                    return Ok(Arrived::Http2(http2, Box::new(stream), peer));
                }
                self.exchange_over_http1(Rewind::new(stream), peer, hooks, deadline, copy).await
            };
            return Box::pin(handshake).await;
        }
        if let Some(http2) = self.options.http2 {
            while http2.may_begin_with(&stream.prefix) {
                let more = poll_fn(|cx| stream.poll_read_ahead(cx).map_err(broken));
                if !deadline.bound("waiting for the request", more).await? {
                    break;
                }
            }
            if http2.begins_with(&stream.prefix) {
                send_at_once(stream.stream.tcp());
                limit_unsent(stream.stream.tcp(), self.options.acceptor.terms().config.limits.unsent);
                return Ok(Arrived::Http2(http2, Box::new(stream), peer));
            }
        }
        if self.options.hooks.fallback.is_some() {
            // The answers to several requests follow each other.
            send_at_once(stream.stream.tcp());
        }
        Box::pin(self.exchange_over_http1(stream, peer, hooks, deadline, copy)).await
    }

    async fn exchange_over_http1<S: IoStream>(
        &self,
        stream: Rewind<S>,
        peer: Peer,
        hooks: &RequestHooks,
        deadline: Deadline,
        copy: &HeadCopy,
    ) -> Result<Arrived, OpeningFailure> {
        let terms = self.options.acceptor.terms();
        let exchanging = http1::exchange(stream, peer, terms, hooks, deadline, copy);
        let opened = exchanging.await?;
        Ok(opened.map_or(Arrived::Pages, |(socket, head)| Arrived::WebSocket(socket, head)))
    }

    /// Serves an HTTP/2 connection until it has ended.
    async fn serve_http2<M: 'static>(
        self: &Arc<Self>,
        http2: Http2Server,
        stream: Box<dyn IoStream>,
        peer: Peer,
        permit: Option<Arc<LentPermit>>,
        deadline: Deadline,
    ) where
        H: Handler<M>,
    {
        let is_kept = permit.is_some() || !self.options.load.need_permits();
        let after_page = if is_kept { AfterPage::Keep } else { AfterPage::Close };
        let begin = |request| {
            let permit = permit.as_ref().and_then(LentPermit::lend);
            self.registry.spawn(permit, |registration| {
                let peer = peer.clone();
                let establish = move |state: Arc<_>| {
                    ServerState::establish_over_http2(state, registration, request, peer, after_page)
                };
                serve_connection(Arc::clone(self), Box::new(establish))
            });
        };
        let limits = &self.options.acceptor.terms().config.limits;
        let stop = self.registry.stopped();
        if let Err(error) = http2.serve(stream, limits, deadline, stop, begin).await {
            let failed: Result<(), _> = Err(error.into());
            self.or_report(failed, peer.addresses.peer, HeadCopy::Unwanted);
        }
    }

    /// Does all that precedes the handler, as [`establish`](Self::establish) does, for a request of an HTTP/2
    /// connection.
    async fn establish_over_http2(
        self: Arc<Self>,
        registration: Registration,
        mut request: Http2Request,
        peer: Peer,
        after_page: AfterPage,
    ) -> Option<Established> {
        let copy = self.head_copy();
        let address = peer.addresses.peer;
        let hooks = self.hooks(registration.place(), address, Carrier::Multiplexed(after_page));
        let terms = self.options.acceptor.terms();
        request.describe(&peer, &copy);
        let Some(reserved) = self.unless_stopping(request.reserve()).await else {
            request.refuse();
            return None;
        };
        let handshake = Box::pin(async { request.exchange(reserved?, peer.addresses, terms, &hooks).await });
        let answered = self.unless_stopping(handshake).await?;
        let answered = answered.map_err(OpeningFailure::from);
        let Accepted { socket, head, slot } = self.or_report(answered, address, copy)??;
        let mut established = self.established(registration, socket, head);
        established.slot = Some(slot);
        Some(established)
    }

    /// Counts and reports the error of a connection that has no request.
    pub(crate) fn report_opening(&self, peer: Option<SocketAddr>, error: Error) {
        let failed: Result<(), _> = Err(error.into());
        self.or_report(failed, peer, HeadCopy::Unwanted);
    }

    /// Waits for `opening`. Returns `None`, and counts the handshake, if the server shuts down before.
    async fn unless_stopping<T>(&self, opening: impl Future<Output = T>) -> Option<T> {
        let opened = self.registry.unless_stopping(opening).await;
        if opened.is_none() {
            self.registry.load.counters.rejected(RejectionReason::Shutdown);
        }
        opened
    }

    /// Counts and reports the error of an opening handshake, if there is one.
    fn or_report<T>(
        &self,
        opened: Result<T, OpeningFailure>,
        peer: Option<SocketAddr>,
        copy: HeadCopy,
    ) -> Option<T> {
        let failed = |OpeningFailure { reason, error }| {
            if reason.is_of_load() {
                return self.refuse(reason, peer, copy.into_head());
            }
            self.registry.load.counters.rejected(reason);
            self.report(|| ServerError::of_opening(peer, copy.into_head(), error));
        };
        opened.map_err(failed).ok()
    }

    fn established(&self, registration: Registration, mut socket: WebSocket, head: Parts) -> Established {
        let peer = socket.peer_addr();
        let span = HandlerSpan::new(HandshakeSubject::of_server(peer.as_ref(), &head.uri));
        let request = self.options.on_error.as_ref().map(|_| RequestLine::new(&head.method, &head.uri));
        let registration = registration.complete(socket.supervise(), request);
        Established { socket, head, span, registration, slot: None }
    }
}

fn broken(error: io::Error) -> Error {
    Error::of_transport("the client's connection broke during the opening handshake", error)
}

/// The task of a connection.
///
/// `establish` is a small closure in a box. Memory that is allocated while connections are accepted lies
/// between their tasks and sockets. Once freed, it leaves a hole of its size.
pub(crate) async fn serve_connection<
    H: Handler<M>,
    M,
    F: Future<Output = Option<Established>> + Send + 'static,
>(
    state: Arc<ServerState<H>>,
    establish: Box<impl FnOnce(Arc<ServerState<H>>) -> F>,
) {
    let opening = boxed(establish, Arc::clone(&state));
    // A borrow of the head here would keep room for it in the task as long as the handler runs.
    let Some(Established { socket, head, span, registration, slot }) = opening.await else { return };
    let code = match CatchPanic::call(|| span.run(state.handler.handle(head, socket))).await {
        Ok(Ok(())) => CloseCode::NORMAL,
        Ok(Err(error)) => {
            state.registry.load.counters.handler_failed();
            state.report(|| registration.error(error));
            CloseCode::INTERNAL_ERROR
        }
        Err(panic) => {
            state.registry.load.counters.handler_failed();
            let error = format!("the handler {panic}").into();
            state.report(|| registration.error(error));
            CloseCode::INTERNAL_ERROR
        }
    };
    drop(state);
    // The result is discarded: the registration finds out how the connection has ended.
    let _ = registration.sender.close(code, "").await;
    drop((registration, slot));
}

/// Boxes the future that establishes a connection, so that its memory is free again when the handler runs.
///
/// The type is erased, because the compiler would otherwise merge both futures into one function. Each poll
/// of a handler would then take 16 KiB of stack and touch all of its pages.
#[inline(never)]
fn boxed<H, F: Future<Output = Option<Established>> + Send + 'static>(
    establish: Box<impl FnOnce(Arc<ServerState<H>>) -> F>,
    state: Arc<ServerState<H>>,
) -> Pin<Box<dyn Future<Output = Option<Established>> + Send>> {
    Box::pin(establish(state))
}
