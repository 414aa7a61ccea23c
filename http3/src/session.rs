//! The state that all streams of one HTTP/3 connection share.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bowline::{Error, ErrorKind};
use quinn::{ConnectionError, ReadError, SendStream, TransportErrorCode, VarInt, WriteError};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::wire::{ErrorCode, Violation};

/// The alert of TLS for protocols that have nothing in common (RFC 7301 3.2).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// An HTTP/3 connection, as its streams see it.
pub(crate) struct Session {
    pub(crate) quic: quinn::Connection,
    /// The violation of the peer for which this side has closed the connection.
    violation: OnceLock<Violation>,
    close_timeout: Duration,
    /// The runtime of the connection: a stream may be dropped outside of it.
    runtime: Handle,
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
        let session = Arc::new(Self { quic, violation: OnceLock::new(), close_timeout, runtime });
        let unused = CancellationToken::new();
        let guard = Arc::new(unused.clone().drop_guard());
        (SessionUse { session, _guard: guard }, unused)
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
    /// Keeps the connection until the peer has received everything on a stream that was finished, for at most
    /// the time of a close.
    ///
    /// quinn closes the connection when its last handle is dropped, and bytes in flight would be lost.
    pub(crate) fn linger(self, stream: &SendStream) {
        let stopped = stream.stopped();
        let limit = self.session.close_timeout;
        let runtime = self.session.runtime.clone();
        runtime.spawn(async move {
            // Either way, this side has done what it could.
            let _ = timeout(limit, stopped).await;
            drop(self);
        });
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
