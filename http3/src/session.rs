//! The state that all streams of one HTTP/3 connection share.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bowline::{Error, ErrorKind};
use quinn::{ConnectionError, ReadError, SendStream, TransportErrorCode, VarInt, WriteError};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::transport::{NARROW_SEND_WINDOW, SEND_WINDOW};
use crate::wire::{ErrorCode, Violation};

/// The alert of TLS for protocols that have nothing in common (RFC 7301 3.2).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A write that flow control has cut to less than this is a short one, in bytes.
const SHORT_WRITE: usize = 64;

/// A write that makes up for a short one, in bytes.
const LARGE_WRITE: usize = 1024;

/// The number of short writes from which the send window is [`NARROW_SEND_WINDOW`].
const MAX_SHORT_WRITES: usize = 1000;

/// An HTTP/3 connection, as its streams see it.
pub(crate) struct Session {
    pub(crate) quic: quinn::Connection,
    /// The violation of the peer for which this side has closed the connection.
    violation: OnceLock<Violation>,
    close_timeout: Duration,
    /// The runtime of the connection: a stream may be dropped outside of it.
    runtime: Handle,
    /// The number of streams whose last bytes the peer has not acknowledged yet.
    lingering: AtomicUsize,
    short_writes: ShortWrites,
}

/// A user of a session. The session's task ends the connection when the last one is dropped.
#[derive(Clone)]
pub(crate) struct SessionUse {
    pub(crate) session: Arc<Session>,
    _guard: Arc<DropGuard>,
}

impl Session {
    /// Creates a session, whose first user is the result. The token is cancelled when the last one is gone.
    pub(crate) fn begin(quic: quinn::Connection, close_timeout: Duration) -> (SessionUse, CancellationToken) {
        let runtime = Handle::current();
        let (violation, lingering) = (OnceLock::new(), AtomicUsize::new(0));
        let short_writes = ShortWrites(AtomicUsize::new(0));
        let session = Arc::new(Self { quic, violation, close_timeout, runtime, lingering, short_writes });
        let unused = CancellationToken::new();
        let guard = Arc::new(unused.clone().drop_guard());
        (SessionUse { session, _guard: guard }, unused)
    }

    /// Returns `true` if the peer is still receiving the last bytes of a stream.
    pub(crate) fn is_lingering(&self) -> bool {
        self.lingering.load(Ordering::Relaxed) > 0
    }

    /// Notes that a stream has accepted `written` of `wanted` bytes, and returns their number, or the
    /// error for the application.
    ///
    /// quinn keeps each write as a piece of memory of its own until the peer has acknowledged it. A byte that
    /// is written alone takes 64 to 96 bytes, of which the send window counts one. So the send window
    /// becomes small for a peer that opens its windows byte by byte. Other peers cut a write short now and
    /// then, at the end of a window. The large writes between make up for that, and restore the send window.
    pub(crate) fn note_write(
        &self,
        written: Result<usize, WriteError>,
        wanted: usize,
    ) -> Result<usize, Error> {
        let written = written.map_err(|error| self.unwritable(error))?;
        if let Some(window) = self.short_writes.note(written, wanted) {
            self.quic.set_send_window(window);
        }
        Ok(written)
    }

    /// Ends the connection because of the peer, and returns the error for the application.
    pub(crate) fn fail(&self, violation: Violation) -> Error {
        // The first violation counts.
        let _ = self.violation.set(violation);
        self.quic.close(var_int(violation.code), violation.why.as_bytes());
        self.broken(ConnectionError::LocallyClosed)
    }

    /// Ends the connection in order, unless it has ended.
    pub(crate) fn close(&self) {
        // The streams report the first reason, and quinn would replace it.
        if self.quic.close_reason().is_none() {
            self.quic.close(var_int(ErrorCode::NO_ERROR), b"");
        }
    }

    /// Describes the end of the connection.
    pub(crate) fn broken(&self, error: ConnectionError) -> Error {
        match (self.violation.get(), error) {
            (Some(Violation { code, why }), ConnectionError::LocallyClosed) => Error::new(
                ErrorKind::Protocol,
                format!("the peer broke the protocol of HTTP/3: {why} ({code})"),
            ),
            (_, error) => connection_error(error),
        }
    }

    /// Describes an error of reading.
    pub(crate) fn unreadable(&self, error: ReadError) -> Error {
        match error {
            ReadError::Reset(code) => by_peer("reset the HTTP/3 stream", code),
            ReadError::ConnectionLost(error) => self.broken(error),
            other => Error::with_source(ErrorKind::Io, "reading from the HTTP/3 stream failed", other),
        }
    }

    /// Describes an error of writing.
    pub(crate) fn unwritable(&self, error: WriteError) -> Error {
        match error {
            WriteError::Stopped(code) => by_peer("stopped reading the HTTP/3 stream", code),
            WriteError::ConnectionLost(error) => self.broken(error),
            other => Error::with_source(ErrorKind::Io, "writing to the HTTP/3 stream failed", other),
        }
    }
}

impl SessionUse {
    /// Keeps the connection until the peer has received everything on a stream that was finished, or has
    /// acknowledged nothing for the time of a close.
    ///
    /// quinn closes the connection when its last handle is dropped, and bytes in flight would be lost.
    pub(crate) fn linger(self, stream: &SendStream) {
        let stopped = stream.stopped();
        let lingering = Lingering::begin(self);
        let runtime = lingering.0.session.runtime.clone();
        runtime.spawn(async move {
            let Session { quic, close_timeout, .. } = &*lingering.0.session;
            let mut stopped = pin!(stopped);
            let (mut last, mut looks) = (Progress::of(quic), 0);
            // A process that was stopped for a while looks once, and then reads what has arrived.
            while looks < LOOKS && timeout(*close_timeout / LOOKS, stopped.as_mut()).await.is_err() {
                let now = Progress::of(quic);
                looks += 1;
                if now.is_after(last) {
                    (last, looks) = (now, 0);
                }
            }
        });
    }
}

/// The number of times that a peer without progress is looked at before it is given up.
const LOOKS: u32 = 4;

/// A user of a session whose stream has ended, and is counted as long as its last bytes are on their way.
struct Lingering(SessionUse);

impl Lingering {
    fn begin(user: SessionUse) -> Self {
        user.session.lingering.fetch_add(1, Ordering::Relaxed);
        Self(user)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.session.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The progress of a peer in receiving, as far as quinn tells.
#[derive(Clone, Copy)]
struct Progress {
    acks: u64,
    /// The packets that keep the connection alive. A peer that receives nothing else acknowledges them, too.
    pings: u64,
}

impl Progress {
    fn of(quic: &quinn::Connection) -> Self {
        let stats = quic.stats();
        Self { acks: stats.frame_rx.acks, pings: stats.frame_tx.ping }
    }

    fn is_after(self, before: Self) -> bool {
        self.acks + before.pings > before.acks + self.pings
    }
}

/// The number of writes that flow control has cut short, less that of large writes.
struct ShortWrites(AtomicUsize);

impl ShortWrites {
    /// Counts a write. Returns the new send window if that is due. The narrow one comes after
    /// [`MAX_SHORT_WRITES`], and lasts for at least as many large writes.
    fn note(&self, written: usize, wanted: usize) -> Option<u64> {
        // Several streams may write at once.
        let change = |next: fn(usize) -> Option<usize>| {
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        };
        if written < wanted && written < SHORT_WRITE {
            let before = change(|count| match count + 1 {
                MAX_SHORT_WRITES => Some(2 * MAX_SHORT_WRITES),
                count => Some(count.min(2 * MAX_SHORT_WRITES)),
            });
            return (before == Ok(MAX_SHORT_WRITES - 1)).then_some(NARROW_SEND_WINDOW);
        }
        if written >= LARGE_WRITE && self.0.load(Ordering::Relaxed) > 0 {
            let before = change(|count| count.checked_sub(1));
            return (before == Ok(MAX_SHORT_WRITES)).then_some(SEND_WINDOW);
        }
        None
    }
}

/// Describes the end of a QUIC connection.
pub(crate) fn connection_error(error: ConnectionError) -> Error {
    let (kind, text) = match &error {
        ConnectionError::TimedOut => {
            (ErrorKind::Timeout, "the HTTP/3 connection timed out, as the peer did not answer".to_owned())
        }
        ConnectionError::ApplicationClosed(close) => {
            let code = ErrorCode(close.error_code.into_inner());
            (ErrorKind::Disconnected, format!("the peer closed the HTTP/3 connection with {code}"))
        }
        // RFC 9001 8.1: the sides share no protocol.
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL) =>
        {
            (ErrorKind::Handshake, "the peer speaks QUIC, but does not offer HTTP/3 (ALPN h3)".to_owned())
        }
        ConnectionError::ConnectionClosed(_) | ConnectionError::Reset => {
            (ErrorKind::Disconnected, "the peer aborted the QUIC connection".to_owned())
        }
        ConnectionError::LocallyClosed => {
            (ErrorKind::Disconnected, "this side closed the HTTP/3 connection".to_owned())
        }
        ConnectionError::VersionMismatch => {
            (ErrorKind::Handshake, "the peer speaks no version of QUIC that this side speaks".to_owned())
        }
        ConnectionError::TransportError(_) | ConnectionError::CidsExhausted => {
            (ErrorKind::Io, "the QUIC connection failed".to_owned())
        }
    };
    Error::with_source(kind, text, error)
}

fn by_peer(what: &str, code: VarInt) -> Error {
    let code = ErrorCode(code.into_inner());
    let text = format!("the peer {what} with {code}");
    Error::with_source(
        ErrorKind::Disconnected,
        text.clone(),
        io::Error::new(io::ErrorKind::ConnectionReset, text),
    )
}

pub(crate) fn var_int(code: ErrorCode) -> VarInt {
    VarInt::from_u64(code.0).expect("the codes of this crate are small")
}

/// Runs `work` for at most `limit`, and describes what was not done in time.
pub(crate) async fn in_time<T>(
    limit: Duration,
    doing: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let text = format!("{doing} took longer than {limit:?} (Limits::handshake_timeout)");
        Err(Error::new(ErrorKind::Timeout, text))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::{MAX_SHORT_WRITES, NARROW_SEND_WINDOW, Progress, SEND_WINDOW, ShortWrites};

    #[test]
    fn short_writes_are_too_many_without_large_ones_between() {
        let writes = ShortWrites(AtomicUsize::new(0));
        // A write without a limit, at the end of a window, and of a message that is small itself.
        for (written, wanted) in [(1024, 1024), (1, 2), (1024, 2000), (63, 63)].repeat(2 * MAX_SHORT_WRITES) {
            assert_eq!(writes.note(written, wanted), None, "{written} of {wanted}");
        }
        for _ in 1..MAX_SHORT_WRITES {
            assert_eq!(writes.note(63, 64), None);
        }
        assert_eq!(writes.note(1, 64), Some(NARROW_SEND_WINDOW));
        for _ in 0..3 * MAX_SHORT_WRITES {
            assert_eq!(writes.note(1, 64), None);
        }
        for _ in 0..MAX_SHORT_WRITES {
            assert_eq!(writes.note(1024, 2000), None);
        }
        assert_eq!(writes.note(1024, 2000), Some(SEND_WINDOW));
    }

    #[test]
    fn acknowledgements_of_pings_are_no_progress() {
        let start = Progress { acks: 5, pings: 1 };
        for (acks, pings, expected) in
            [(5, 1, false), (6, 1, true), (5, 2, false), (6, 2, false), (7, 2, true), (9, 5, false)]
        {
            assert_eq!(Progress { acks, pings }.is_after(start), expected, "{acks} of {pings}");
        }
    }
}
