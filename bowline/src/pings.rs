//! Pings whose pongs are waited for.

use std::time::Duration;

use tokio::time::Instant;

use crate::random::random;

/// The pings under way, if there are any.
#[expect(clippy::box_collection, reason = "most of the time it costs only the pointer")]
#[derive(Default)]
pub(crate) struct Pings(Option<Box<Vec<Ping>>>);

struct Ping {
    payload: [u8; 8],
    sent: Instant,
    round_trip: Option<Duration>,
}

impl Pings {
    /// A new one, which is sent now; the result is its payload.
    pub(crate) fn begin(&mut self) -> [u8; 8] {
        let payload = random();
        self.0.get_or_insert_default().push(Ping { payload, sent: Instant::now(), round_trip: None });
        payload
    }

    /// A pong has arrived; whether it is that of one of these.
    pub(crate) fn ponged(&mut self, payload: [u8; 8]) -> bool {
        let ping = self.0.iter_mut().flat_map(|pings| pings.iter_mut()).find(|ping| ping.payload == payload);
        ping.map(|ping| ping.round_trip.get_or_insert(ping.sent.elapsed())).is_some()
    }

    /// How long the ping took, once its pong has arrived.
    pub(crate) fn round_trip(&self, payload: [u8; 8]) -> Option<Duration> {
        self.0.as_ref()?.iter().find(|ping| ping.payload == payload)?.round_trip
    }

    pub(crate) fn forget(&mut self, payload: [u8; 8]) {
        if let Some(pings) = &mut self.0 {
            pings.retain(|ping| ping.payload != payload);
        }
        self.0.take_if(|pings| pings.is_empty());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}
