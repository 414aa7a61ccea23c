//! The limits on the load of a server: connections, connections of one address, handshakes a second.
//!
//! A connection needs a [`Permit`] for as long as it lives. It is asked for twice:
//!
//! ```text
//! accepted --a permit is free------------------------------------------------> request --> on_request ...
//!    |                                                                           ^  |
//!    +--none is free--> may another refusal be answered? --yes--> without a permit  +--still none--> 503
//!                                  |
//!                                  +--no--> closed at once
//! ```
//!
//! So a flood costs no more TLS handshakes and responses than [`ANSWERS_PER_SECOND`], and a connection that
//! finds a free place at its request is served. Over HTTP/2, each request asks for a permit of its own, and
//! one at a time uses that of its connection.
//!
//! The rates are token buckets, as one point in time each: there is no timer, and no memory, for a client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::FAR;
use crate::server::registry::stats::Counters;
use crate::server::rejection::RejectionReason;

/// The number of refusals a second that are answered. The others are closed at once.
const ANSWERS_PER_SECOND: u32 = 100;

/// The number of addresses for which memory is kept even if no connection uses it.
const SPARE_GROUPS: usize = 64;

/// The time whose tokens a bucket saves up. Timers are no more precise than a tenth of this.
const BURST: Duration = Duration::from_millis(100);

/// The time after a report of a refusal, in which those for the same reason are only counted.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// The largest rate. A bucket counts in nanoseconds.
const MAX_RATE: u32 = 1_000_000;

/// The limits on the load of a server. By default there are none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoadLimits {
    pub(crate) connections: Option<usize>,
    pub(crate) connections_per_address: Option<usize>,
    pub(crate) handshakes_per_second: Option<u32>,
}

impl LoadLimits {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let rate = self.handshakes_per_second;
        let invalid = if self.connections == Some(0) {
            "Server::connections is 0, but has to be at least 1".to_owned()
        } else if self.connections_per_address == Some(0) {
            "Server::connections_per_address is 0, but has to be at least 1".to_owned()
        } else if rate == Some(0) {
            "Server::handshakes_per_second is 0, but has to be at least 1".to_owned()
        } else if let Some(rate) = rate.filter(|rate| *rate > MAX_RATE) {
            format!("Server::handshakes_per_second is {rate}, but may be at most {MAX_RATE}")
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidInput, invalid))
    }

    /// Describes the limit that is the reason for a refusal.
    fn describe(&self, reason: RejectionReason) -> String {
        let number = |limit: Option<usize>| limit.unwrap_or_default();
        match reason {
            RejectionReason::Connections => {
                let most = number(self.connections);
                format!("a connection was refused: the server has {most} (Server::connections)")
            }
            RejectionReason::ConnectionsPerAddress => {
                let most = number(self.connections_per_address);
                format!("a connection was refused: its address has {most} (Server::connections_per_address)")
            }
            _ => {
                let rate = self.handshakes_per_second.unwrap_or_default();
                format!(
                    "a handshake was refused: there are more than {rate} a second \
                     (Server::handshakes_per_second)"
                )
            }
        }
    }

    /// Returns `true` if there is a limit.
    pub(crate) fn any(&self) -> bool {
        self.need_permits() || self.handshakes_per_second.is_some()
    }

    /// Returns `true` if connections need permits.
    pub(crate) fn need_permits(&self) -> bool {
        self.connections.is_some() || self.connections_per_address.is_some()
    }
}

/// The load of a server, which its clones share.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) counters: Counters,
    connections: AtomicUsize,
    /// The numbers of connections of each group of addresses, without zeros.
    groups: Mutex<HashMap<AddressGroup, usize>>,
    handshakes: Mutex<TokenBucket>,
    answers: Mutex<TokenBucket>,
    reports: Mutex<HashMap<RejectionReason, Throttle>>,
}

impl Load {
    /// Asks for a permit. Returns `None` if none is needed, and the reason if none is free.
    pub(crate) fn admit(
        self: &Arc<Self>,
        limits: &LoadLimits,
        peer: Option<SocketAddr>,
    ) -> Result<Option<Permit>, RejectionReason> {
        if !limits.need_permits() {
            return Ok(None);
        }
        let most = limits.connections.unwrap_or(usize::MAX);
        let one_more = |count: usize| (count < most).then(|| count + 1);
        self.connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|_| RejectionReason::Connections)?;
        let group = match (limits.connections_per_address, peer) {
            (Some(most), Some(peer)) => {
                let group = AddressGroup::of(peer.ip());
                let mut groups = lock(&self.groups);
                let count = groups.entry(group).or_default();
                if *count >= most {
                    drop(groups);
                    self.release(None);
                    return Err(RejectionReason::ConnectionsPerAddress);
                }
                *count += 1;
                Some(group)
            }
            _ => None,
        };
        Ok(Some(Permit::Own { load: Arc::clone(self), group }))
    }

    fn release(&self, group: Option<AddressGroup>) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(group) = group else { return };
        let mut groups = lock(&self.groups);
        if let Some(count) = groups.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                groups.remove(&group);
            }
        }
        // The memory of many addresses is not kept.
        let len = groups.len();
        if groups.capacity() > SPARE_GROUPS + 4 * len {
            groups.shrink_to(2 * len);
        }
    }

    /// Returns `true` if one more refusal may be answered now.
    pub(crate) fn may_answer(&self) -> bool {
        let now = Instant::now();
        lock(&self.answers).take(ANSWERS_PER_SECOND, now, now).is_some()
    }

    /// Takes a handshake from the limit. Returns its time, or the reason if that is not within `patience`.
    pub(crate) fn take_handshake(
        &self,
        limits: &LoadLimits,
        patience: Duration,
    ) -> Result<Instant, RejectionReason> {
        let now = Instant::now();
        let Some(rate) = limits.handshakes_per_second else { return Ok(now) };
        let latest = now + patience.min(FAR);
        lock(&self.handshakes).take(rate, now, latest).ok_or(RejectionReason::HandshakesPerSecond)
    }

    /// Waits until the next handshake may begin. Returns the reason if that is not within `patience`.
    pub(crate) async fn next_handshake(
        &self,
        limits: &LoadLimits,
        patience: Duration,
    ) -> Result<(), RejectionReason> {
        let at = self.take_handshake(limits, patience)?;
        if at > Instant::now() {
            sleep_until(at).await;
        }
        Ok(())
    }

    /// Counts a refusal. Returns the error to report, which is at most one a second for each reason.
    pub(crate) fn refuse(&self, reason: RejectionReason, limits: &LoadLimits) -> Option<Error> {
        self.counters.rejected(reason);
        let others = lock(&self.reports).entry(reason).or_default().pass(Instant::now())?;
        let text = limits.describe(reason);
        Some(Error::new(
            ErrorKind::Limit,
            match others {
                0 => text,
                _ => format!("{text}; {others} others were refused since the last report"),
            },
        ))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right of a connection to exist, until the permit is dropped.
pub(crate) enum Permit {
    /// A unit of the counts that are limited.
    Own { load: Arc<Load>, group: Option<AddressGroup> },
    /// The permit of the HTTP/2 connection that carries the WebSocket.
    Lent(Arc<LentPermit>),
}

/// The permit of an HTTP/2 connection, which one of its WebSockets at a time uses. So the connection counts
/// as the number of its WebSockets, or as one more.
pub(crate) struct LentPermit {
    in_use: AtomicBool,
    _permit: Permit,
}

impl LentPermit {
    pub(crate) fn new(permit: Permit) -> Arc<Self> {
        Arc::new(Self { in_use: AtomicBool::new(false), _permit: permit })
    }

    /// Returns the permit, unless another WebSocket uses it.
    pub(crate) fn lend(self: &Arc<Self>) -> Option<Permit> {
        let is_free = !self.in_use.swap(true, Ordering::Relaxed);
        is_free.then(|| Permit::Lent(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self {
            Self::Own { load, group } => load.release(*group),
            Self::Lent(lent) => lent.in_use.store(false, Ordering::Relaxed),
        }
    }
}

/// The addresses that count as one client: one of IPv4, or a network of 64 bits of IPv6, which is what one
/// customer of a provider has at least.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AddressGroup {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl AddressGroup {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// A token bucket, in the form of the time at which it is full again (the generic cell rate algorithm).
#[derive(Default)]
struct TokenBucket {
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// Takes the next token, and returns its time. Returns `None`, and takes none, if that is after `latest`.
    fn take(&mut self, rate: u32, now: Instant, latest: Instant) -> Option<Instant> {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        let next = full_at.checked_sub(BURST).map_or(now, |next| next.max(now));
        if next > latest {
            return None;
        }
        self.full_at = Some(full_at + Duration::from_secs(1) / rate);
        Some(next)
    }
}

/// A gate that lets one report a second pass, and counts the others.
#[derive(Default)]
struct Throttle {
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// Returns the number of reports that were held back since the last one, or `None` to hold back this one.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + REPORT_PAUSE) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{AddressGroup, TokenBucket};

    #[test]
    fn a_bucket_lets_its_rate_through_and_saves_up_a_tenth_of_a_second() {
        for rate in [1, 7, 1000, 1_000_000] {
            let mut bucket = TokenBucket::default();
            let mut now = Instant::now();
            let end = now + Duration::from_secs(3);
            let mut taken = 0;
            while let Some(at) = bucket.take(rate, now, end) {
                assert!(at >= now);
                now = at;
                taken += 1;
            }
            let expected = 3 * rate + rate / 10;
            assert!(taken >= expected && taken <= expected + 1 + rate / 1000, "{taken} at {rate}");
        }
    }

    #[test]
    fn addresses_of_ipv6_count_by_64_bits() {
        let group = |text: &str| AddressGroup::of(text.parse::<IpAddr>().unwrap());
        assert!(group("2001:db8:1:2::1") == group("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(group("2001:db8:1:2::1") != group("2001:db8:1:3::1"));
        assert!(group("::ffff:203.0.113.7") == group("203.0.113.7"));
        assert!(group("203.0.113.7") != group("203.0.113.8"));
    }
}
