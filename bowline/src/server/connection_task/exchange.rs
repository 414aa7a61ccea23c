//! A request of another HTTP stack, from its head to its handler.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::Deadline;
use crate::server::check::acceptance::Admission;
use crate::server::check::fallback::AfterPage;
use crate::server::check::{Answered, answer, fit_to_stream, head_over_limit, remove_connection_headers};
use crate::server::connection_task::{Carrier, Established, OpeningFailure, ServerState};
use crate::server::handshake::ServerHandshake;
use crate::server::registry::{LentPermit, Registration, Slots, Usage};
use crate::socket::WebSocket;
use crate::transport::byte_stream::ByteStream;
use crate::transport::peer::Peer;
use crate::transport::{Addresses, Transport};

/// The way back to the client of a request, in an HTTP stack other than the library's own.
///
/// [`RequestConnection::serve`](crate::RequestConnection::serve) takes a request and its exchange. Exactly
/// one of [`open`](Self::open) and [`respond`](Self::respond) is called, or neither if the server shuts down
/// or the request took too long. An exchange that is dropped tells the client that its request failed.
///
/// [`Server::serve_requests`](crate::Server::serve_requests) has an example.
pub trait Exchange: Send + 'static {
    /// The stream of the request, which carries a WebSocket.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Returns an error once the client does not want the answer any more, such as after a reset. The work
    /// for the request is then dropped.
    ///
    /// The method is called while the application decides about the request. An exchange that can't know
    /// returns `Poll::Pending`.
    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Sends the head of a response that opens a WebSocket, and returns the stream.
    ///
    /// The stream ends in order when it is shut down. A stream that is dropped before is reset.
    fn open(self, response: Response<()>) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Sends a whole response, which opens no WebSocket.
    fn respond(self, response: Response<Bytes>) -> impl Future<Output = io::Result<()>> + Send;
}

/// An [`Exchange`] without its type.
pub(crate) trait AnyExchange: Send {
    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<io::Error>;

    fn open(self: Box<Self>, response: Response<()>) -> IoFuture<ByteStream>;

    fn respond(self: Box<Self>, response: Response<Bytes>) -> IoFuture<()>;
}

type IoFuture<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl<E: Exchange> AnyExchange for E {
    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        Exchange::poll_abandoned(self, cx)
    }

    fn open(self: Box<Self>, response: Response<()>) -> IoFuture<ByteStream> {
        Box::pin(async move { Exchange::open(*self, response).await.map(ByteStream::new) })
    }

    fn respond(self: Box<Self>, response: Response<Bytes>) -> IoFuture<()> {
        Box::pin(async move { Exchange::respond(*self, response).await })
    }
}

/// A request that is being received, and its exchange.
pub(crate) type ReceivedRequest =
    Pin<Box<dyn Future<Output = Result<(Request<()>, Box<dyn AnyExchange>), Error>> + Send>>;

/// The facts about a connection with many requests, which its requests share.
pub(crate) struct SharedConnection {
    pub(crate) peer: Peer,
    pub(crate) usage: Arc<Usage>,
    slots: Slots,
    /// The permit that one WebSocket at a time uses.
    pub(crate) permit: Option<Arc<LentPermit>>,
    pub(crate) after_page: AfterPage,
}

impl<H> ServerState<H> {
    /// Takes the permit of a connection with many requests, and returns what its requests share.
    pub(crate) fn share(&self, registration: &Registration, addresses: Addresses) -> SharedConnection {
        let permit = registration.place().take_permit().map(LentPermit::new);
        let is_kept = permit.is_some() || !self.options.load.need_permits();
        SharedConnection {
            peer: Peer { addresses, tls: None },
            usage: Arc::default(),
            slots: Slots::new(self.options.acceptor.terms().config.limits.max_streams),
            permit,
            after_page: if is_kept { AfterPage::Keep } else { AfterPage::Close },
        }
    }

    /// Does all that precedes the handler, as [`establish`](Self::establish) does, for a request of another
    /// HTTP stack.
    pub(crate) async fn establish_by_exchange(
        self: Arc<Self>,
        registration: Registration,
        connection: Arc<SharedConnection>,
        receiving: ReceivedRequest,
    ) -> Option<Established> {
        let copy = self.head_copy();
        let address = connection.peer.addresses.peer;
        let hooks = self.hooks(registration.place(), address, Carrier::Multiplexed(connection.after_page));
        let terms = self.options.acceptor.terms();
        let limits = &terms.config.limits;
        let deadline = Deadline::after(limits.handshake_timeout);
        let handshake = Box::pin(async {
            // The slot comes first: a client that resets its streams must not receive more work than another.
            let taking = async { Ok(connection.slots.take().await) };
            let slot = deadline.bound("waiting for one of Limits::max_streams", taking).await?;
            let (request, mut exchange) = deadline.bound("receiving the request", receiving).await?;
            let (mut head, ()) = request.into_parts();
            connection.peer.describe(&mut head.extensions);
            copy.keep(&head);
            let is_head = head.method == Method::HEAD;
            let deciding = async {
                match head_over_limit(&head, limits) {
                    Some(rejected) => Ok(rejected),
                    None => Ok(answer(head, terms, &hooks).await),
                }
            };
            let deciding = while_wanted(&mut *exchange, deciding);
            let (answer, mut response) = deadline.bound("checking the request", deciding).await?;
            remove_connection_headers(response.headers_mut());
            match answer {
                Answered::Admitted(admission) => {
                    let opening = async { exchange.open(response.map(drop)).await.map_err(unanswered) };
                    let stream = deadline.bound("sending the response", opening).await?;
                    let slot = slot.counting(connection.usage.count_one());
                    Ok(Some((open(admission, stream, connection.peer.addresses), slot)))
                }
                Answered::Page(after) => {
                    let deadline = Deadline::after(limits.handshake_timeout);
                    let response = fit_to_stream(response, is_head);
                    let sending = async { exchange.respond(response).await.map_err(unanswered) };
                    deadline.bound("sending the answer", sending).await?;
                    if after == AfterPage::Keep {
                        connection.usage.note();
                    }
                    Ok(None)
                }
                Answered::Rejected(error) => {
                    let response = fit_to_stream(response, is_head);
                    let sending = async { exchange.respond(response).await.map_err(unanswered) };
                    // This fails only if the client does not want the answer any more.
                    let _ = deadline.bound("sending the answer", sending).await;
                    Err(error)
                }
            }
        });
        let answered = self.unless_stopping(handshake).await?;
        let answered = answered.map_err(OpeningFailure::from);
        let ((socket, head), slot) = self.or_report(answered, address, copy)??;
        let mut established = self.established(registration, socket, head);
        established.slot = Some(slot);
        Some(established)
    }
}

/// Opens the connection of a request that was accepted.
fn open(admission: Admission, stream: ByteStream, addresses: Addresses) -> (WebSocket, Parts) {
    let Admission { head, agreement } = admission;
    let transport = Transport::with_addresses(stream, addresses);
    (ServerHandshake::new(agreement).complete(transport, &[]), head)
}

/// Does `work` for a request, which is dropped when the client does not want the answer any more.
async fn while_wanted<T>(
    exchange: &mut dyn AnyExchange,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // An answer that takes no time needs no watch.
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        exchange.poll_abandoned(cx).map(|error| {
            let text = "the client gave its request up before the answer";
            Err(Error::with_source(ErrorKind::Disconnected, text, error))
        })
    })
    .await
}

fn unanswered(error: io::Error) -> Error {
    Error::of_transport("the client does not receive the answer", error)
}
