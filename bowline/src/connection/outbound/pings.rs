//! Pings that wait for their pongs.

use std::time::Duration;

use tokio::time::Instant;

use crate::random::random;

/// The pings under way, in the order in which they were sent. Without any, this is one pointer.
#[expect(clippy::box_collection, reason = "most of the time there are none, which costs only the pointer")]
#[derive(Default)]
pub(crate) struct Pings(Option<Box<Vec<Ping>>>);

struct Ping {
    payload: [u8; 8],
    sent: Instant,
    round_trip: Option<Duration>,
    /// Set for a ping of the keepalive, whose round trip nobody asks for.
    is_keepalive: bool,
}

impl Pings {
    /// Adds a ping that is sent now, and returns its payload.
    pub(crate) fn begin(&mut self) -> [u8; 8] {
        let ping = Ping::new(false);
        let payload = ping.payload;
        self.0.get_or_insert_default().push(ping);
        payload
    }

    /// Adds a ping of the keepalive, and returns its payload. Returns `None` if no other ping is waiting for
    /// a pong.
    pub(crate) fn begin_keepalive(&mut self) -> Option<[u8; 8]> {
        let pings = self.0.as_mut()?;
        let ping = Ping::new(true);
        let payload = ping.payload;
        pings.push(ping);
        Some(payload)
    }

    /// Notes a pong. Returns whether the pong belongs to one of these pings.
    ///
    /// RFC 6455 5.5.3: a peer may answer only the most recent of several pings. A pong therefore also settles
    /// all pings that were sent before its own.
    pub(crate) fn ponged(&mut self, payload: [u8; 8]) -> bool {
        let Some(pings) = &mut self.0 else { return false };
        let Some(position) = pings.iter().position(|ping| ping.payload == payload) else { return false };
        for ping in &mut pings[..=position] {
            ping.round_trip.get_or_insert_with(|| ping.sent.elapsed());
        }
        pings.retain(|ping| !ping.is_keepalive || ping.round_trip.is_none());
        true
    }

    /// Returns the round trip of a ping, once its pong or a later one has arrived.
    pub(crate) fn round_trip(&self, payload: [u8; 8]) -> Option<Duration> {
        self.0.as_ref()?.iter().find(|ping| ping.payload == payload)?.round_trip
    }

    /// Forgets a ping. Keepalive pings are dropped once no other ping remains.
    pub(crate) fn forget(&mut self, payload: [u8; 8]) {
        if let Some(pings) = &mut self.0 {
            pings.retain(|ping| ping.payload != payload);
        }
        self.0.take_if(|pings| pings.iter().all(|ping| ping.is_keepalive));
    }

    /// Forgets all pings.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    /// Returns whether no ping is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Ping {
    fn new(is_keepalive: bool) -> Self {
        Self { payload: random(), sent: Instant::now(), round_trip: None, is_keepalive }
    }
}
