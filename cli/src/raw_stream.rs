//! Streams of any kind, for commands that write bytes of their own.

use tokio::io::{AsyncRead, AsyncWrite};

/// A stream to a server: TCP, TLS, a Unix socket, or a stream of HTTP/3.
pub(crate) trait RawStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> RawStream for S {}
