//! The way from a plan to one open connection, and how long its steps took.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bowline::http::Response;
use bowline::{CloseCode, Error, ErrorKind, HandshakeTimes, WebSocket};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::bench::plan::Plan;
use crate::bench::tally::Openings;
use crate::bench::units::nanos;
use crate::connect::{ConnectError, Target, Version};

/// The time that a server has to accept a TCP connection, as that of the whole handshake in the library.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to the server.
#[derive(Debug)]
pub(crate) struct Dialer {
    target: Target,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// By the library, through a proxy or a Unix socket.
    Library,
    /// By TCP to an address that has been tried. Resolving the name for each connection would measure the
    /// resolver.
    Tcp { peer: SocketAddr, sources: Vec<IpAddr>, next_source: AtomicUsize },
}

/// A connection that was not opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Tcp { peer: SocketAddr, error: io::Error },
    Handshake(ConnectError),
}

/// A connection that was opened.
pub(crate) struct Opened {
    pub(crate) socket: WebSocket,
    /// The time until TCP was connected, or the proxy's tunnel, unless the transport is a Unix socket.
    tcp: Option<Duration>,
    /// The times of the further steps. If this program has dialled, they begin after that.
    times: HandshakeTimes,
}

impl Dialer {
    /// Finds the way by opening a connection, which is closed again. Its error says best why there is none.
    pub(crate) async fn find(plan: &Plan) -> Result<Self, ConnectError> {
        let target = plan.target.clone();
        let Some(addresses) = target.addresses().await? else {
            let dialer = Self { target, way: Way::Library };
            return Ok(dialer.open().await.map(|opened| dialer.close(&opened))?);
        };
        let mut failure = None;
        for peer in addresses {
            let way = Way::Tcp { peer, sources: plan.sources.clone(), next_source: AtomicUsize::new(0) };
            let dialer = Self { target: target.clone(), way };
            match dialer.open().await {
                Ok(opened) => return Ok(dialer.close(&opened)),
                Err(error @ OpenError::Tcp { .. }) => failure = Some(error),
                Err(OpenError::Handshake(error)) => return Err(error),
            }
        }
        Err(failure.expect("there is at least one address").into())
    }

    fn close(self, opened: &Opened) -> Self {
        let _ = opened.socket.begin_close(CloseCode::NORMAL, "");
        self
    }

    /// Opens a connection.
    pub(crate) async fn open(&self) -> Result<Opened, OpenError> {
        let start = Instant::now();
        let Way::Tcp { peer, .. } = self.way else {
            let (socket, response) = self.target.connect().await?;
            let times = times_of(&response);
            if self.target.version() == Version::Http3 {
                return Ok(Opened { socket, tcp: None, times: without_tcp(times) });
            }
            return Ok(Opened { socket, tcp: times.connected(), times });
        };
        let failed = |error| OpenError::Tcp { peer, error };
        let dialled = timeout(TCP_TIMEOUT, self.dial(peer)).await;
        let stream = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
        let tcp = start.elapsed();
        let (socket, response) = self.target.connect_over(stream).await?;
        Ok(Opened { socket, tcp: Some(tcp), times: times_of(&response) })
    }

    async fn dial(&self, peer: SocketAddr) -> io::Result<TcpStream> {
        let socket = if peer.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(source) = self.source() {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.set_nodelay(true)?;
        socket.connect(peer).await
    }

    /// The next of the local addresses.
    fn source(&self) -> Option<IpAddr> {
        match &self.way {
            Way::Library => None,
            Way::Tcp { sources, next_source, .. } => {
                let next = next_source.fetch_add(1, Ordering::Relaxed);
                sources.get(next.checked_rem(sources.len())?).copied()
            }
        }
    }
}

/// The times of a handshake over HTTP/3, in which the step of TLS is the whole handshake of QUIC.
fn without_tcp(times: HandshakeTimes) -> HandshakeTimes {
    let whole = HandshakeTimes::new(times.upgraded());
    times.secured().map_or(whole, |secured| whole.with_secured(secured))
}

fn times_of(response: &Response<()>) -> HandshakeTimes {
    *response.extensions().get().expect("the library says how long each handshake took")
}

impl Opened {
    /// Adds the times of the steps to those of other connections. The connection was due at `start`.
    pub(crate) fn record(&self, start: Instant, openings: &mut Openings) {
        openings.total.record(nanos(start.elapsed()));
        if let Some(tcp) = self.tcp {
            openings.tcp.record(nanos(tcp));
        }
        let mut before = self.times.connected().unwrap_or_default();
        if let Some(secured) = self.times.secured() {
            openings.tls.record(nanos(secured.saturating_sub(before)));
            before = secured;
        }
        openings.upgrade.record(nanos(self.times.upgraded().saturating_sub(before)));
    }
}

impl OpenError {
    /// The kind of the error, in few words.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Tcp { error, .. } => match error.kind() {
                io::ErrorKind::AddrNotAvailable => "no local port is free (--source adds addresses)".into(),
                io::ErrorKind::TimedOut => "connecting timed out".into(),
                // Without the number of the error, which the text of the system adds.
                kind => kind.to_string(),
            },
            Self::Handshake(ConnectError::Dial(text)) => text.clone(),
            Self::Handshake(ConnectError::Library(error)) => match (error.response(), error.kind()) {
                (Some(response), _) => format!("handshake answered with {}", response.status().as_u16()),
                (None, ErrorKind::Timeout) => "handshake timed out".into(),
                (None, ErrorKind::Handshake) => error.to_string(),
                (None, kind) => format!("handshake: {kind}"),
            },
        }
    }
}

impl From<ConnectError> for OpenError {
    fn from(error: ConnectError) -> Self {
        Self::Handshake(error)
    }
}

impl From<OpenError> for ConnectError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Tcp { peer, error } => Self::Dial(format!("connecting to {peer} failed: {error}")),
            OpenError::Handshake(error) => error,
        }
    }
}

/// The kind of the end of a connection that was open, in few words.
pub(crate) fn loss_kind(error: Option<&Error>, socket: &WebSocket) -> String {
    match (error, socket.close_frame()) {
        (_, Some(frame)) if frame.code() == CloseCode::NO_STATUS => {
            "closed by the server without a code".into()
        }
        (_, Some(frame)) => format!("closed by the server with {}", u16::from(frame.code())),
        (Some(error), None) => error.kind().to_string(),
        (None, None) => "connection lost".into(),
    }
}
