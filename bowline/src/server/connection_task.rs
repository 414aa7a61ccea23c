//! The task of a connection of a server, from its first byte to its end.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bowline_proto::CloseCode;
use http::request::Parts;
use tokio::net::TcpStream;

use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::Deadline;
use crate::server::acceptor::Acceptor;
use crate::server::catch_panic::{CatchPanic, catch};
use crate::server::check::RequestCheck;
use crate::server::handler::Handler;
use crate::server::http2::{Accepted, Http2Request, Http2Server};
use crate::server::registry::{OpenRegistration, Registration, Registry};
use crate::socket::WebSocket;
use crate::transport::alpn::Alpn;
use crate::transport::rewind::Rewind;
use crate::transport::tls::ServerTls;
use crate::transport::{Addresses, IoStream};

/// What the builder of a server decides.
#[derive(Default)]
pub(crate) struct ServerOptions {
    pub(crate) acceptor: Acceptor,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) http2: Option<Http2Server>,
    pub(crate) check: Option<RequestCheck>,
    pub(crate) on_error: Option<Box<dyn ReportError>>,
}

impl ServerOptions {
    /// Has TLS agree on what is spoken behind it.
    pub(crate) fn with_protocols(mut self) -> Self {
        let protocols: &[Alpn] =
            if self.http2.is_some() { &[Alpn::Http2, Alpn::Http1] } else { &[Alpn::Http1] };
        self.tls = self.tls.map(|tls| tls.with_protocols(protocols));
        self
    }
}

/// What the closure that hears of errors has to be.
pub(crate) trait ReportError: Fn(Box<dyn StdError + Send + Sync>) + Send + Sync {}

impl<F: Fn(Box<dyn StdError + Send + Sync>) + Send + Sync> ReportError for F {}

/// What all connections share.
pub(crate) struct ServerState<H> {
    pub(crate) options: ServerOptions,
    pub(crate) handler: H,
    /// Our own address, unless each connection has to say its own.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) connections: Arc<Registry>,
}

impl<H> ServerState<H> {
    pub(crate) fn report(&self, error: Box<dyn StdError + Send + Sync>) {
        if let Some(on_error) = &self.options.on_error {
            // There is nobody to tell, and no reason to end more than what has failed.
            let _ = catch(|| on_error(error));
        }
    }
}

/// A connection whose handshake is done.
pub(crate) struct Established {
    socket: WebSocket,
    head: Parts,
    connection: OpenRegistration,
}

/// What a client turns out to have connected for.
#[allow(clippy::large_enum_variant, reason = "it lives for a moment only")]
enum Arrived {
    WebSocket(WebSocket, Parts),
    Http2(Http2Server, Box<dyn IoStream>),
}

impl<H> ServerState<H> {
    /// Everything before a connection is open; `None` if that fails, and behind the end of an HTTP/2 connection, of which the
    /// streams are opened.
    pub(crate) async fn open<M: 'static>(
        self: Arc<Self>,
        place: Registration,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<Established>
    where
        H: Handler<M>,
    {
        let local = self.local.or_else(|| stream.local_addr().ok());
        let addresses = Addresses { local, peer: Some(peer) };
        let deadline = Deadline::after(self.options.acceptor.handshake_timeout());
        // In a box of its own, because combinators keep what they are given twice.
        let arriving = Box::pin(self.meet(stream, addresses, deadline));
        let arrived = self.unless_failing(arriving).await?;
        match arrived {
            Arrived::WebSocket(socket, head) => Some(Established::new(place, socket, head)),
            Arrived::Http2(http2, stream) => {
                // It keeps its place on the list until its end.
                let _place = place;
                Box::pin(self.serve_http2(http2, stream, addresses, deadline)).await;
                None
            }
        }
    }

    /// TLS, and the handshake of HTTP/1.1.
    async fn meet(
        &self,
        stream: TcpStream,
        addresses: Addresses,
        deadline: Deadline,
    ) -> Result<Arrived, Error> {
        // A client that says nothing gets nothing of what follows, which takes several KiB each.
        let mut stream = Rewind::new(stream);
        let first = poll_fn(|cx| stream.poll_read_ahead(cx).map_err(broken));
        deadline.bound("waiting for the request", first).await?;
        if let Some(config) = &self.options.tls {
            // In a box, as it is much larger than what follows.
            let handshake = async {
                // It fails only on a socket that is broken, which the next read says better.
                let _ = stream.rest.set_nodelay(true);
                let accepting = config.accept(stream);
                let (stream, chosen) = deadline.bound("doing the TLS handshake", accepting).await?;
                if let (Some(http2), Alpn::Http2) = (self.options.http2, chosen) {
                    return Ok(Arrived::Http2(http2, Box::new(stream)));
                }
                self.shake_hands(Rewind::new(stream), addresses, deadline).await
            };
            return Box::pin(handshake).await;
        }
        if let Some(http2) = self.options.http2 {
            while http2.may_begin_with(&stream.first) {
                let more = poll_fn(|cx| stream.poll_read_ahead(cx).map_err(broken));
                if !deadline.bound("waiting for the request", more).await? {
                    break;
                }
            }
            if http2.begins_with(&stream.first) {
                let _ = stream.rest.set_nodelay(true);
                return Ok(Arrived::Http2(http2, Box::new(stream)));
            }
        }
        Box::pin(self.shake_hands(stream, addresses, deadline)).await
    }

    async fn shake_hands<S: IoStream>(
        &self,
        stream: Rewind<S>,
        addresses: Addresses,
        deadline: Deadline,
    ) -> Result<Arrived, Error> {
        let ServerOptions { acceptor, check, .. } = &self.options;
        let (socket, head) = acceptor.shake_hands(stream, addresses, check.as_ref(), deadline).await?;
        Ok(Arrived::WebSocket(socket, head))
    }

    /// Serves an HTTP/2 connection, until it has ended.
    async fn serve_http2<M: 'static>(
        self: &Arc<Self>,
        http2: Http2Server,
        stream: Box<dyn IoStream>,
        addresses: Addresses,
        deadline: Deadline,
    ) where
        H: Handler<M>,
    {
        let begin = |request| {
            self.connections.spawn(|place| {
                let open = move |shared: Arc<_>| ServerState::open_stream(shared, place, request, addresses);
                serve_connection(Arc::clone(self), Box::new(open))
            });
        };
        let limits = self.options.acceptor.limits_in_force();
        let stop = self.connections.stopped();
        if let Err(error) = http2.serve(stream, limits, deadline, stop, begin).await {
            self.report(error.into());
        }
    }

    /// The same as [`open`](Self::open) for a request of an HTTP/2 connection.
    async fn open_stream(
        self: Arc<Self>,
        place: Registration,
        request: Http2Request,
        addresses: Addresses,
    ) -> Option<Established> {
        let ServerOptions { acceptor, check, .. } = &self.options;
        let handshake = Box::pin(acceptor.shake_hands_over_http2(request, addresses, check.as_ref()));
        let Accepted { socket, head, slot } = self.unless_failing(handshake).await?;
        let mut opened = Established::new(place, socket, head);
        opened.connection.slot = Some(slot);
        Some(opened)
    }

    /// `None` if the server goes down meanwhile, or there is an error, which is reported.
    async fn unless_failing<T>(&self, opening: impl Future<Output = Result<T, Error>>) -> Option<T> {
        let opened = self.connections.unless_stopping(opening).await?;
        opened.map_err(|error| self.report(error.into())).ok()
    }
}

impl Established {
    fn new(place: Registration, mut socket: WebSocket, head: Parts) -> Self {
        let connection = place.open(socket.supervise());
        Self { socket, head, connection }
    }
}

fn broken(error: io::Error) -> Error {
    Error::with_source(ErrorKind::Io, "the connection broke during the opening handshake", error)
}

/// The task of a connection.
///
/// `open` is in a box, and small: what is allocated while connections are accepted lies between their tasks and sockets, and
/// leaves a hole of its size once it is freed.
pub(crate) async fn serve_connection<
    H: Handler<M>,
    M,
    F: Future<Output = Option<Established>> + Send + 'static,
>(
    shared: Arc<ServerState<H>>,
    open: Box<impl FnOnce(Arc<ServerState<H>>) -> F>,
) {
    let opening = begin(open, Arc::clone(&shared));
    let Some(Established { socket, head, mut connection }) = opening.await else { return };
    let code = match CatchPanic::call(|| shared.handler.handle(head, socket)).await {
        Ok(Ok(())) => CloseCode::NORMAL,
        Ok(Err(error)) => {
            shared.report(error);
            CloseCode::INTERNAL_ERROR
        }
        Err(panic) => {
            shared.report(format!("the handler {panic}").into());
            CloseCode::INTERNAL_ERROR
        }
    };
    drop(shared);
    connection.closed = connection.sender.close(code, "").await.is_ok();
}

/// What opens a connection, in a box, so that the memory is free again when the handler runs.
///
/// Its type is forgotten, as the compiler would make one function of all: each poll of a handler would take 16 KiB of stack, and
/// touch all of its pages.
#[inline(never)]
fn begin<H, F: Future<Output = Option<Established>> + Send + 'static>(
    open: Box<impl FnOnce(Arc<ServerState<H>>) -> F>,
    shared: Arc<ServerState<H>>,
) -> Pin<Box<dyn Future<Output = Option<Established>> + Send>> {
    Box::pin(open(shared))
}
