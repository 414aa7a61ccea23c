//! The part of a connection that belongs to no request: control streams, settings, GOAWAY (RFC 9114 6.2).

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bowline::Error;
use quinn::{ConnectionError, RecvStream, SendStream};

use crate::peer_streams::{PeerState, PeerStream, Verdict};
use crate::session::{Session, var_int};
use crate::stream::Side;
use crate::wire::{ErrorCode, Settings, goaway};

/// The largest piece of a stream that is taken out of QUIC at once, in bytes.
const MAX_CHUNK: usize = 4 * 1024;

/// The number of pieces of one stream that one poll reads.
const MAX_STEPS: usize = 16;

/// The priority of the control stream: SETTINGS and GOAWAY overtake messages.
const URGENT: i32 = 1;

/// A future of the next unidirectional stream.
type Accepting = Pin<Box<dyn Future<Output = Result<RecvStream, ConnectionError>> + Send>>;

/// The driver of one connection.
pub(crate) struct Driver {
    session: Arc<Session>,
    /// RFC 9114 6.2.1: the control stream stays open as long as the connection.
    control: SendStream,
    accepting: Accepting,
    streams: Vec<(RecvStream, PeerStream)>,
    pub(crate) peer: PeerState,
}

impl Driver {
    /// Opens the control stream, and sends our settings.
    pub(crate) async fn open(session: &Arc<Session>, side: Side, settings: &Settings) -> Result<Self, Error> {
        let opening = session.quic.open_uni();
        let mut control = opening.await.map_err(|error| session.broken(error))?;
        // This fails only if the stream has ended.
        let _ = control.set_priority(URGENT);
        let bytes = settings.open_control_stream();
        control.write_all(&bytes).await.map_err(|error| session.unwritable(error))?;
        Ok(Self {
            session: Arc::clone(session),
            control,
            accepting: accept(session),
            streams: Vec::new(),
            peer: PeerState::new(side),
        })
    }

    /// Sends a GOAWAY, after which requests from `id` on are not processed (RFC 9114 5.2).
    pub(crate) async fn send_goaway(&mut self, id: u64) {
        // This fails only if the connection has ended.
        let _ = self.control.write_all(&goaway(id)).await;
    }

    /// Reads the streams of the peer. Returns `Ready` at the end of the connection.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        while let Poll::Ready(accepted) = self.accepting.as_mut().poll(cx) {
            match accepted {
                Ok(stream) => self.streams.push((stream, PeerStream::new())),
                Err(error) => return Poll::Ready(self.session.broken(error)),
            }
            self.accepting = accept(&self.session);
        }
        let (session, peer) = (&self.session, &mut self.peer);
        let mut failed = None;
        self.streams.retain_mut(|(stream, kind)| {
            failed.is_none()
                && read(session, peer, stream, kind, cx).unwrap_or_else(|error| {
                    failed = Some(error);
                    false
                })
        });
        failed.map_or(Poll::Pending, Poll::Ready)
    }
}

fn accept(session: &Session) -> Accepting {
    let quic = session.quic.clone();
    Box::pin(async move { quic.accept_uni().await })
}

/// Reads a stream as far as its bytes have arrived. Returns `false` if the stream is not needed any more.
fn read(
    session: &Session,
    peer: &mut PeerState,
    stream: &mut RecvStream,
    kind: &mut PeerStream,
    cx: &mut Context<'_>,
) -> Result<bool, Error> {
    let fail = |violation| session.fail(violation);
    for _ in 0..MAX_STEPS {
        // The future has no state of its own.
        let Poll::Ready(chunk) = pin!(stream.read_chunk(MAX_CHUNK, true)).poll(cx) else { return Ok(true) };
        match chunk {
            Ok(Some(chunk)) => match peer.receive(kind, &chunk.bytes).map_err(fail)? {
                Verdict::Read => {}
                Verdict::Ignore => {
                    // This fails only if the stream has ended.
                    let _ = stream.stop(var_int(ErrorCode::STREAM_CREATION_ERROR));
                    return Ok(false);
                }
            },
            Ok(None) => return PeerState::end(kind).map(|()| false).map_err(fail),
            Err(quinn::ReadError::Reset(_)) => return PeerState::end(kind).map(|()| false).map_err(fail),
            Err(error) => return Err(session.unreadable(error)),
        }
    }
    cx.waker().wake_by_ref();
    Ok(true)
}
