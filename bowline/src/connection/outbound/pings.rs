//! Pings that wait for their pongs.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::outbound::random::random;
use crate::error::{Error, ErrorKind};

/// The pings under way, in the order in which they were sent, and the round trip of the last one that was
/// answered.
#[derive(Default)]
pub(crate) struct Pings {
    /// In a box, as most of the time there are none.
    sent: Option<Box<SentPings>>,
    /// In microseconds, rounded up: an idle connection keeps it.
    last_round_trip: Option<NonZeroU32>,
}

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
        let mut pings = self.sent.iter().flat_map(|sent| &sent.pings);
        if pings.any(|ping| ping.round_trip.is_none() && *ping.payload == *payload) {
            let text = "another ping with this payload waits for its pong: set a payload of its own for each \
                        ping (Ping::payload), or none";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(())
    }

    /// Adds a ping that is sent now.
    pub(crate) fn begin(&mut self, payload: &[u8]) -> PingId {
        self.sent.get_or_insert_default().begin(payload.into(), false)
    }

    /// Adds a ping of the keepalive, and returns its payload. Earlier ones that were not answered are
    /// forgotten, as a peer need not answer any.
    pub(crate) fn begin_keepalive(&mut self) -> [u8; 8] {
        let payload = random();
        let sent = self.sent.get_or_insert_default();
        sent.pings.retain(|ping| !ping.is_keepalive);
        sent.begin(Box::new(payload), true);
        payload
    }

    /// Notes a pong. Returns whether the pong belongs to one of these pings.
    ///
    /// RFC 6455 5.5.3: a peer may answer only the most recent of several pings. A pong therefore also settles
    /// all pings that were sent before its own.
    pub(crate) fn ponged(&mut self, payload: &[u8]) -> bool {
        let Some(SentPings { pings, .. }) = self.sent.as_deref_mut() else { return false };
        let is_answered = |ping: &SentPing| ping.round_trip.is_none() && *ping.payload == *payload;
        let Some(position) = pings.iter().position(is_answered) else { return false };
        for ping in &mut pings[..=position] {
            ping.round_trip.get_or_insert_with(|| ping.sent.elapsed());
        }
        let round_trip = pings[position].round_trip.unwrap_or_default();
        let micros = round_trip.as_nanos().div_ceil(1000).max(1);
        self.last_round_trip = NonZeroU32::new(u32::try_from(micros).unwrap_or(u32::MAX));
        pings.retain(|ping| !ping.is_keepalive || ping.round_trip.is_none());
        self.sent.take_if(|sent| sent.pings.is_empty());
        true
    }

    /// Returns the round trip of a ping, once its pong or a later one has arrived.
    pub(crate) fn round_trip(&self, id: PingId) -> Option<Duration> {
        self.sent.as_ref()?.pings.iter().find(|ping| ping.id == id)?.round_trip
    }

    /// Returns the round trip of the last ping that was answered.
    pub(crate) fn last_round_trip(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.last_round_trip?.get().into()))
    }

    /// Forgets a ping.
    pub(crate) fn forget(&mut self, id: PingId) {
        if let Some(sent) = &mut self.sent {
            sent.pings.retain(|ping| ping.id != id);
        }
        self.sent.take_if(|sent| sent.pings.is_empty());
    }

    /// Forgets all pings.
    pub(crate) fn clear(&mut self) {
        self.sent = None;
    }

    /// Returns whether a caller waits for a pong. Nobody waits for those of the keepalive.
    pub(crate) fn are_awaited(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.pings.iter().any(|ping| !ping.is_keepalive))
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
