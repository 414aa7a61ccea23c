//! A ping, and the wait for its pong.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::connection::operations::PlaceGuard;
use crate::connection::outbound::Queue;
use crate::connection::outbound::pings::PingId;
use crate::connection::outbound::wait_queue::Manner;
use crate::error::Error;

/// The future of a ping: it sends the ping, waits for the pong, and returns the round-trip time.
///
/// [`WebSocket::ping`](crate::WebSocket::ping) and [`Sender::ping`](crate::Sender::ping) return this future.
/// Nothing is sent before the future is polled.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline::Error> {
/// let (client, _server) = bowline::pair();
/// println!("{:?}", client.ping().await?);
/// println!("{:?}", client.ping().payload("probe 17").await?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// - Returns the error that ended the connection if it ended before the pong arrived.
/// - Returns [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the [`payload`](Self::payload) is
///   over 125 bytes long, or that of another ping under way. In that case nothing was sent.
///
/// # Cancel safety
///
/// This future is cancel safe. If it is dropped, the ping may have been sent, and its pong is ignored.
#[must_use = "futures do nothing unless they are polled"]
pub struct Ping<'a> {
    place: PlaceGuard<'a>,
    stage: PingStage,
}

/// The progress of a ping.
///
/// ```text
/// Unsent --the write queue has room--> Sent --the pong has arrived, or can't arrive any more--> (ready)
/// ```
enum PingStage {
    /// The payload is random if it is `None`.
    Unsent(Option<Box<[u8]>>),
    Sent(PingId),
}

impl<'a> Ping<'a> {
    pub(crate) fn new(connection: &'a Arc<Connection>) -> Self {
        Self { place: PlaceGuard::new(connection, Queue::Watchers), stage: PingStage::Unsent(None) }
    }

    /// Sets the payload, of at most 125 bytes (RFC 6455 5.5). Default: 8 random bytes.
    ///
    /// A pong belongs to the ping with the same payload. The payload must therefore differ from those of
    /// other pings that wait for their pongs. A peer may also send pongs that nobody asked for (RFC 6455
    /// 5.5.3), and such a pong counts if it has this payload.
    pub fn payload(self, payload: impl AsRef<[u8]>) -> Self {
        let mut ping = Self::new(self.place.connection);
        ping.stage = PingStage::Unsent(Some(payload.as_ref().into()));
        ping
    }
}

impl Future for Ping<'_> {
    type Output = Result<Duration, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { place, stage } = self.get_mut();
        let connection = place.connection;
        let mut outbound = connection.outbound();
        if let PingStage::Unsent(payload) = stage {
            if let Some(error) = outbound.pings_ended() {
                return Poll::Ready(Err(error.clone()));
            }
            if !outbound.has_space() {
                outbound.wait(Queue::Watchers, &mut place.place, Manner::Future, cx.waker());
                return Poll::Pending;
            }
            *stage = PingStage::Sent(outbound.accept_ping(payload.as_deref())?);
            connection.write(outbound, Hold::Never);
            connection.waker.set_driver_waits(true);
            connection.waker.wake_driver();
            outbound = connection.outbound();
        }
        let PingStage::Sent(ping) = stage else { unreachable!("the ping was just sent") };
        if let Some(round_trip) = outbound.pings.round_trip(*ping) {
            return Poll::Ready(Ok(round_trip));
        }
        if let Some(error) = outbound.pings_ended() {
            return Poll::Ready(Err(error.clone()));
        }
        outbound.wait(Queue::Watchers, &mut place.place, Manner::Future, cx.waker());
        Poll::Pending
    }
}

impl Drop for Ping<'_> {
    fn drop(&mut self) {
        if let PingStage::Sent(ping) = self.stage {
            self.place.connection.outbound().pings.forget(ping);
        }
    }
}

impl fmt::Debug for Ping<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ping").finish_non_exhaustive()
    }
}
