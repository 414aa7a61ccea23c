//! Pings that wait for their pongs.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::random::random;

/// The pings under way, in the order in which they were sent. Without any, this is one pointer.
#[derive(Default)]
pub(crate) struct Pings(Option<Box<SentPings>>);

#[derive(Default)]
struct SentPings {
    pings: Vec<SentPing>,
    /// The number of pings that were sent since there were none.
    count: u64,
}

/// The identity of a ping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PingId(u64);

struct SentPing {
    id: PingId,
    payload: Box<[u8]>,
    sent: Instant,
    round_trip: Option<Duration>,
    /// Set for a ping of the keepalive, whose round trip nobody asks for.
    is_keepalive: bool,
}

impl Pings {
    /// Returns an error if a ping with this payload waits for its pong, which could not be told apart.
    pub(crate) fn check_new(&self, payload: &[u8]) -> Result<(), Error> {
        let mut pings = self.0.iter().flat_map(|sent| &sent.pings);
        if pings.any(|ping| ping.round_trip.is_none() && *ping.payload == *payload) {
            let text = "another ping with this payload waits for its pong: set a payload of its own for each \
                        ping (Ping::payload), or none";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(())
    }

    /// Adds a ping that is sent now.
    pub(crate) fn begin(&mut self, payload: &[u8]) -> PingId {
        self.0.get_or_insert_default().begin(payload.into(), false)
    }

    /// Adds a ping of the keepalive, and returns its payload. Returns `None` if no other ping is waiting for
    /// a pong.
    pub(crate) fn begin_keepalive(&mut self) -> Option<[u8; 8]> {
        let payload = random();
        self.0.as_mut()?.begin(Box::new(payload), true);
        Some(payload)
    }

    /// Notes a pong. Returns whether the pong belongs to one of these pings.
    ///
    /// RFC 6455 5.5.3: a peer may answer only the most recent of several pings. A pong therefore also settles
    /// all pings that were sent before its own.
    pub(crate) fn ponged(&mut self, payload: &[u8]) -> bool {
        let Some(SentPings { pings, .. }) = self.0.as_deref_mut() else { return false };
        let is_answered = |ping: &SentPing| ping.round_trip.is_none() && *ping.payload == *payload;
        let Some(position) = pings.iter().position(is_answered) else { return false };
        for ping in &mut pings[..=position] {
            ping.round_trip.get_or_insert_with(|| ping.sent.elapsed());
        }
        pings.retain(|ping| !ping.is_keepalive || ping.round_trip.is_none());
        true
    }

    /// Returns the round trip of a ping, once its pong or a later one has arrived.
    pub(crate) fn round_trip(&self, id: PingId) -> Option<Duration> {
        self.0.as_ref()?.pings.iter().find(|ping| ping.id == id)?.round_trip
    }

    /// Forgets a ping. Keepalive pings are dropped once no other ping remains.
    pub(crate) fn forget(&mut self, id: PingId) {
        if let Some(sent) = &mut self.0 {
            sent.pings.retain(|ping| ping.id != id);
        }
        self.0.take_if(|sent| sent.pings.iter().all(|ping| ping.is_keepalive));
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

impl SentPings {
    fn begin(&mut self, payload: Box<[u8]>, is_keepalive: bool) -> PingId {
        self.count += 1;
        let id = PingId(self.count);
        self.pings.push(SentPing { id, payload, sent: Instant::now(), round_trip: None, is_keepalive });
        id
    }
}
