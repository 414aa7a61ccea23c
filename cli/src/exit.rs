//! The status of the process.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bowline::{Error, ErrorKind};
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// The status of the process, which the man page promises to scripts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// Everything ended as asked.
    Success,
    /// A failure that is none of the others, such as a file that can't be written.
    Failure,
    /// Wrong arguments. clap exits with the same status.
    Usage,
    /// The server was not reached: name resolution, TCP, TLS or a proxy failed.
    Unreachable,
    /// The server refused the opening handshake.
    Refused,
    /// The connection was lost, or the peer violated the protocol.
    Lost,
    /// The peer closed with a code other than 1000, 1001 or none.
    ClosedByPeer,
    /// The time of `--timeout` was up.
    TimedOut,
    /// `check` found a fault, or a condition of `--fail-if` was met.
    Findings,
    /// A signal, such as 2 for SIGINT.
    Signal(u8),
}

impl Exit {
    /// The status of an attempt to connect that failed.
    pub(crate) fn of_connect(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidInput => Self::Usage,
            ErrorKind::Handshake | ErrorKind::Protocol | ErrorKind::Limit => Self::Refused,
            _ if error.response().is_some() => Self::Refused,
            _ => Self::Unreachable,
        }
    }

    /// The status of an open connection that failed.
    pub(crate) fn of_connection(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Closed if error.close_frame().is_some() => Self::ClosedByPeer,
            _ => Self::Lost,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Refused => 4,
            Exit::Lost => 5,
            Exit::ClosedByPeer => 6,
            Exit::TimedOut => 7,
            Exit::Findings => 8,
            Exit::Signal(number) => 128_u8.saturating_add(number),
        })
    }
}

/// The status that a signal has decided, if one has arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct SignalExit(Arc<AtomicU8>);

impl SignalExit {
    /// The status of a program that a signal has ended, else success.
    pub(crate) fn get(&self) -> Exit {
        match self.0.load(Ordering::Relaxed) {
            0 => Exit::Success,
            number => Exit::Signal(number),
        }
    }
}

/// Returns a future that is ready at the first SIGINT or SIGTERM. The second ends the process at once.
///
/// Must be called within a runtime.
pub(crate) fn first_signal() -> (SignalExit, impl Future<Output = ()> + Send + 'static) {
    let exit = SignalExit::default();
    let (first, arrived) = oneshot::channel();
    let seen = exit.clone();
    tokio::spawn(async move {
        let mut signals = Signals::new();
        seen.0.store(signals.next().await, Ordering::Relaxed);
        let _ = first.send(());
        let number = signals.next().await;
        std::process::exit(128 + i32::from(number));
    });
    (exit, async move {
        // The sender is dropped only with the runtime.
        let _ = arrived.await;
    })
}

/// The signals that end a program.
#[cfg(unix)]
pub(crate) struct Signals(Option<(Signal, Signal)>);

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> Self {
        Self(signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?))).ok())
    }

    /// Waits for a signal, and returns its number.
    pub(crate) async fn next(&mut self) -> u8 {
        match &mut self.0 {
            Some((interrupt, terminate)) => tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
            },
            // Then the system's own action ends the process.
            None => std::future::pending().await,
        }
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) async fn next(&mut self) -> u8 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 2,
            Err(_) => std::future::pending().await,
        }
    }
}
