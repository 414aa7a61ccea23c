//! The limits of a connection in a browser.

use std::time::Duration;

/// The longest timer of JavaScript.
#[cfg(feature = "client")]
const MAX_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// The longest timer in words.
#[cfg(feature = "client")]
const MOST: &str = " s, but may be at most 24 days";

/// The limits of a connection.
///
/// [`Connector::limits`](crate::Connector::limits) overrides them.
///
/// | limit | default | when it is exceeded |
/// |---|---|---|
/// | [`message_size`](Self::message_size) | 1 MiB | the connection is closed with 4009 |
/// | [`unread`](Self::unread) | 16 MiB | the connection is closed with 4009, or the server waits |
/// | [`handshake_timeout`](Self::handshake_timeout) | 10 s | the handshake fails |
/// | [`close_timeout`](Self::close_timeout) | 5 s | the connection is given up |
/// | [`write_buffer`](Self::write_buffer) | 64 KiB | senders wait |
///
/// The error that reports an exceeded limit names the setting. Its kind is
/// [`ErrorKind::Limit`](crate::ErrorKind::Limit) or [`ErrorKind::Timeout`](crate::ErrorKind::Timeout).
///
/// The other limits of the native library don't exist here: the browser parses the handshake and the frames,
/// and has limits of its own.
///
/// Each setting is a field to read, and a method of the same name that sets the field.
///
/// A setting out of its range is reported as [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput),
/// with its name, when the builder is used.
///
/// # Examples
///
/// ```
/// use bowline::{Connector, Limits};
///
/// let limits = Limits::default().message_size(16 * 1024 * 1024);
/// assert_eq!(limits.message_size, 16 * 1024 * 1024);
/// assert_eq!(limits.write_buffer, Limits::default().write_buffer);
/// let connector = Connector::new().limits(limits);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The size of the largest message to receive, in bytes: see [the setter](Self::message_size).
    pub message_size: usize,
    /// The size of all messages that wait to be received, in bytes: see [the setter](Self::unread).
    pub unread: usize,
    /// The time for the opening handshake: see [the setter](Self::handshake_timeout).
    pub handshake_timeout: Duration,
    /// The time for the end of a connection: see [the setter](Self::close_timeout).
    pub close_timeout: Duration,
    /// The high-water mark of the write buffer, in bytes: see [the setter](Self::write_buffer).
    pub write_buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: 1024 * 1024,
            unread: 16 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            write_buffer: 64 * 1024,
        }
    }
}

impl Limits {
    /// Sets the size of the largest message to receive, in bytes. Default: 1 MiB.
    ///
    /// A larger message closes the connection with 4009. (Browsers don't send 1009.) The browser has the
    /// whole message in memory by then: only the server can prevent that.
    pub fn message_size(mut self, bytes: usize) -> Self {
        self.message_size = bytes;
        self
    }

    /// Sets the size of all messages that have arrived and wait to be received, in bytes. Default: 16 MiB; at
    /// least [`message_size`](Self::message_size).
    ///
    /// A browser can't be told to receive more slowly, so messages accumulate while the application does not
    /// call `recv`. If they exceed this limit, the connection is closed with 4009. Each message counts for
    /// another 64 bytes, so empty messages are bounded, too.
    ///
    /// With the feature `websocket-stream`, Chromium can be told. The connection then stays open, and the
    /// server has to wait as soon as another message of [`message_size`](Self::message_size) might not fit.
    ///
    /// This limit exists in browsers only. The native library stops reading instead, and the server waits.
    pub fn unread(mut self, bytes: usize) -> Self {
        self.unread = bytes;
        self
    }

    /// Sets the time for the opening handshake. Default: 10 s; at most 24 days.
    ///
    /// The time includes TLS, proxies and name resolution. If a busy or frozen page notices its end more than
    /// a second late, the time starts anew, once.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Sets the time for the end of a connection. Default: 5 s; at most 24 days.
    ///
    /// The time starts with our Close frame, and ends when the browser reports the end. After this time, the
    /// connection is given up. A late end of the time is treated as that of
    /// [`handshake_timeout`](Self::handshake_timeout).
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Sets the high-water mark of the write buffer, in bytes. Default: 64 KiB; at least 1.
    ///
    /// The write buffer is that of the browser, whose size is `bufferedAmount`. While fewer bytes wait to be
    /// written, the next message is accepted whole, whatever its size. At the mark, senders wait.
    pub fn write_buffer(mut self, bytes: usize) -> Self {
        self.write_buffer = bytes;
        self
    }

    /// Describes the first setting that is out of its range.
    #[cfg(feature = "client")]
    pub(crate) fn invalid(&self) -> Option<String> {
        let handshake_timeout = self.handshake_timeout.as_secs();
        let settings = [
            (self.handshake_timeout > MAX_TIMEOUT, "handshake_timeout", handshake_timeout, MOST),
            (self.close_timeout > MAX_TIMEOUT, "close_timeout", self.close_timeout.as_secs(), MOST),
            (self.write_buffer < 1, "write_buffer", self.write_buffer as u64, ", but has to be at least 1"),
            (
                self.unread < self.message_size,
                "unread",
                self.unread as u64,
                ", but has to be at least Limits::message_size",
            ),
        ];
        let (_, name, value, range) = settings.into_iter().find(|(is_invalid, ..)| *is_invalid)?;
        Some(["Limits::", name, " is ", &value.to_string(), range].iter().copied().collect())
    }
}
