//! The durations of the steps of an opening handshake.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

/// The times at which the steps of an opening handshake were complete.
///
/// All times count from the call that began the handshake, so each contains those before it. A client finds
/// them in the extensions of the response that [`Connector::connect`](crate::Connector::connect) and its
/// siblings return. A handshake that another HTTP client carries out, by
/// [`ClientHandshake`](crate::ClientHandshake), has no times, unless that client measures them and builds the
/// value with [`new`](Self::new).
///
/// ```no_run
/// use bowline::{Connector, HandshakeTimes};
///
/// # async fn example() -> Result<(), bowline::Error> {
/// let (_socket, response) = Connector::new().connect("wss://example.com/feed").await?;
/// let times = response.extensions().get::<HandshakeTimes>().expect("each handshake has them");
/// println!("connected after {:?}, open after {:?}", times.connected(), times.upgraded());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeTimes {
    resolved: Option<Duration>,
    connected: Option<Duration>,
    secured: Option<Duration>,
    upgraded: Duration,
}

impl HandshakeTimes {
    /// Creates the times of a handshake that another HTTP stack has carried out, such as one of HTTP/3, from
    /// the time of the whole handshake.
    ///
    /// Without the methods `with_resolved`, `with_connected` and `with_secured`, these steps are `None`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bowline::HandshakeTimes;
    ///
    /// let times = HandshakeTimes::new(Duration::from_millis(30)).with_connected(Duration::from_millis(20));
    /// assert_eq!(times.connected(), Some(Duration::from_millis(20)));
    /// assert_eq!(times.upgraded(), Duration::from_millis(30));
    /// ```
    pub fn new(upgraded: Duration) -> Self {
        Self { resolved: None, connected: None, secured: None, upgraded }
    }

    /// Sets the time at which the name was resolved.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bowline::HandshakeTimes;
    ///
    /// let times = HandshakeTimes::new(Duration::from_millis(30)).with_resolved(Duration::from_millis(5));
    /// assert_eq!(times.resolved(), Some(Duration::from_millis(5)));
    /// ```
    pub fn with_resolved(self, resolved: Duration) -> Self {
        Self { resolved: Some(resolved), ..self }
    }

    /// Sets the time at which the transport was connected to the server.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bowline::HandshakeTimes;
    ///
    /// let times = HandshakeTimes::new(Duration::from_millis(30)).with_connected(Duration::from_millis(20));
    /// assert_eq!(times.connected(), Some(Duration::from_millis(20)));
    /// ```
    pub fn with_connected(self, connected: Duration) -> Self {
        Self { connected: Some(connected), ..self }
    }

    /// Sets the time at which the TLS handshake with the server was complete.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bowline::HandshakeTimes;
    ///
    /// let times = HandshakeTimes::new(Duration::from_millis(30)).with_secured(Duration::from_millis(20));
    /// assert_eq!(times.secured(), Some(Duration::from_millis(20)));
    /// ```
    pub fn with_secured(self, secured: Duration) -> Self {
        Self { secured: Some(secured), ..self }
    }

    /// Returns the time at which the name was resolved: that of the host, or of the proxy.
    ///
    /// `None` means that there was no name to resolve: the URL has an IP address, a proxy resolves the name,
    /// or the stream was the application's.
    pub fn resolved(&self) -> Option<Duration> {
        self.resolved
    }

    /// Returns the time at which the transport was connected to the server: TCP, and the tunnel through a
    /// proxy if there is one.
    ///
    /// Over HTTP/3, this is the QUIC handshake, which includes that of TLS. `None` means that the stream was
    /// the application's, or a connection of HTTP/2 or HTTP/3 that was open already.
    pub fn connected(&self) -> Option<Duration> {
        self.connected
    }

    /// Returns the time at which the TLS handshake with the server was complete.
    ///
    /// `None` means that the library did no TLS for this handshake.
    pub fn secured(&self) -> Option<Duration> {
        self.secured
    }

    /// Returns the time at which the server's response had arrived and was accepted: that of the whole
    /// handshake.
    ///
    /// Over HTTP/2, the exchange of settings is part of this step, and so is the waiting for another stream.
    pub fn upgraded(&self) -> Duration {
        self.upgraded
    }
}

/// The steps of a handshake that goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    start: Instant,
    resolved: Option<Instant>,
    connected: Option<Instant>,
    secured: Option<Instant>,
}

impl Steps {
    /// Begins a handshake.
    pub(crate) fn begin() -> Self {
        Self::since(Instant::now())
    }

    /// Begins a handshake that replaces another one, which began at `start`.
    pub(crate) fn since(start: Instant) -> Self {
        Self { start, resolved: None, connected: None, secured: None }
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    pub(crate) fn connected(&mut self, resolution: &Resolution) {
        self.resolved = resolution.0.get().copied();
        self.connected = Some(Instant::now());
    }

    pub(crate) fn secured(&mut self) {
        self.secured = Some(Instant::now());
    }

    /// Completes the handshake.
    pub(crate) fn upgraded(self) -> HandshakeTimes {
        let Self { start, resolved, connected, secured } = self;
        let since = |step: Option<Instant>| step.map(|step| step.saturating_duration_since(start));
        HandshakeTimes {
            resolved: since(resolved),
            connected: since(connected),
            secured: since(secured),
            upgraded: start.elapsed(),
        }
    }
}

/// The time at which a name was resolved, which a resolver deep inside a connector reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolution(Arc<OnceLock<Instant>>);

impl Resolution {
    pub(crate) fn resolved(&self) {
        // A SOCKS proxy may have a name, too, which is resolved after that of the server.
        let _ = self.0.set(Instant::now());
    }
}
