//! The limits on what a peer may cost.

use std::time::Duration;

/// hyper panics if it is asked for a smaller buffer.
#[cfg(any(feature = "client", feature = "server"))]
const MIN_HEAD_SIZE: usize = 8 * 1024;

/// An `http::HeaderMap` panics when it grows beyond 24,576 headers.
#[cfg(any(feature = "client", feature = "server"))]
const MAX_HEADERS: usize = 16 * 1024;

/// The payload of the largest frame that every HTTP/2 peer accepts (RFC 9113 4.2).
#[cfg(any(feature = "client", feature = "server"))]
const MIN_STREAM_WINDOW: usize = 16 * 1024;

/// The largest flow-control window (RFC 9113 6.9.1).
#[cfg(any(feature = "client", feature = "server"))]
const MAX_STREAM_WINDOW: usize = (1 << 31) - 1;

/// The largest value of the socket option of [`Limits::unsent`].
#[cfg(any(feature = "client", feature = "server"))]
const MAX_UNSENT: usize = (1 << 31) - 1;

/// The limits of a connection.
///
/// All limits but [`unsent`](Self::unsent) are on by default.
/// [`Acceptor::limits`](crate::Acceptor::limits) and [`Connector::limits`](crate::Connector::limits) override
/// them.
///
/// | limit | default | when it is exceeded |
/// |---|---|---|
/// | [`message_size`](Self::message_size) | 1 MiB | the connection is closed with 1009 |
/// | [`frames_per_message`](Self::frames_per_message) | 16,384 | the connection is closed with 1008 |
/// | [`head_size`](Self::head_size) | 16 KiB | the handshake fails; a server responds with 431 |
/// | [`max_headers`](Self::max_headers) | 100 | the handshake fails; a server responds with 431 |
/// | [`handshake_timeout`](Self::handshake_timeout) | 10 s | the handshake fails |
/// | [`close_timeout`](Self::close_timeout) | 5 s | the transport is dropped |
/// | [`write_buffer`](Self::write_buffer) | 64 KiB | senders wait |
/// | [`unsent`](Self::unsent) | that of the operating system | the write buffer fills |
/// | [`max_streams`](Self::max_streams) (HTTP/2, HTTP/3) | 100 | clients wait |
/// | [`stream_window`](Self::stream_window) (HTTP/2, HTTP/3) | 256 KiB | the peer waits |
///
/// The error that reports an exceeded limit names the setting. Its kind is
/// [`ErrorKind::Limit`](crate::ErrorKind::Limit) or [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), or
/// [`ErrorKind::Handshake`](crate::ErrorKind::Handshake) for too many headers over HTTP/2.
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
    /// The largest number of frames in a received message: see [the setter](Self::frames_per_message).
    pub frames_per_message: u32,
    /// The size of the largest head in the opening handshake, in bytes: see [the setter](Self::head_size).
    pub head_size: usize,
    /// The largest number of headers in the opening handshake: see [the setter](Self::max_headers).
    pub max_headers: usize,
    /// The time for the opening handshake: see [the setter](Self::handshake_timeout).
    pub handshake_timeout: Duration,
    /// The time for the end of a connection: see [the setter](Self::close_timeout).
    pub close_timeout: Duration,
    /// The high-water mark of the write buffer, in bytes: see [the setter](Self::write_buffer).
    pub write_buffer: usize,
    /// The number of unsent bytes that the operating system may hold, or `None` for its own limit: see
    /// [the setter](Self::unsent).
    pub unsent: Option<usize>,
    /// The largest number of WebSockets on one connection: see [the setter](Self::max_streams).
    pub max_streams: u32,
    /// The number of unread bytes on one stream: see [the setter](Self::stream_window).
    pub stream_window: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: 1024 * 1024,
            frames_per_message: 16_384,
            head_size: 16 * 1024,
            max_headers: 100,
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            write_buffer: 64 * 1024,
            unsent: None,
            max_streams: 100,
            stream_window: 256 * 1024,
        }
    }
}

impl Limits {
    /// Sets the size of the largest message to receive, in bytes. Default: 1 MiB.
    ///
    /// A larger message closes the connection with 1009 (RFC 6455 7.4.1) as soon as its size is known, before
    /// memory is taken for it.
    ///
    /// The limit applies to decompressed messages. In compressed form, a message may take twice the limit
    /// plus 256 KiB. This bound stops a peer that sends endless empty blocks; no real compressor reaches it.
    /// Each deflate stream that ends inside a message counts for another 64 bytes.
    pub fn message_size(mut self, bytes: usize) -> Self {
        self.message_size = bytes;
        self
    }

    /// Sets the largest number of frames in a received message, including empty frames. Default: 16,384.
    ///
    /// A message with more frames closes the connection with 1008 (RFC 6455 7.4.1).
    pub fn frames_per_message(mut self, frames: u32) -> Self {
        self.frames_per_message = frames;
        self
    }

    /// Sets the size of the largest head of a request or response in the opening handshake, in bytes.
    /// Default: 16 KiB; at least 8 KiB.
    ///
    /// A larger head fails the handshake. A server responds with the status 431 (RFC 6585 5).
    pub fn head_size(mut self, bytes: usize) -> Self {
        self.head_size = bytes;
        self
    }

    /// Sets the largest number of headers in a request or response of the opening handshake. Default: 100; at
    /// most 16,384.
    ///
    /// A head with more headers fails the handshake. A server responds with the status 431 (RFC 6585 5).
    pub fn max_headers(mut self, headers: usize) -> Self {
        self.max_headers = headers;
        self
    }

    /// Sets the time for the opening handshake. Default: 10 s.
    ///
    /// The time starts when a client dials or a server accepts, and ends when the WebSocket is open. It
    /// includes TLS, proxies and name resolution.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Sets the time for the end of a connection. Default: 5 s.
    ///
    /// The time starts with the first Close frame, ours or the peer's, and ends when the transport has ended.
    /// After this time, the transport is dropped.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Sets the high-water mark of the write buffer, in bytes. Default: 64 KiB; at least 1.
    ///
    /// While fewer bytes wait to be written, the next message is accepted whole, whatever its size. At the
    /// mark, senders wait. As long as the transport takes all bytes, replies to messages that arrived
    /// together gather up to four times the mark and leave with one write. Over HTTP/2, up to 64 KiB more
    /// wait in the HTTP/2 connection.
    pub fn write_buffer(mut self, bytes: usize) -> Self {
        self.write_buffer = bytes;
        self
    }

    /// Sets the number of bytes that the operating system may hold and has not sent yet. Default: the limit
    /// of the operating system, which on Linux grows to 4 MiB; at least 1, less than 2 GiB.
    ///
    /// Bytes that the operating system has taken can't be withdrawn. A message waits behind them, and
    /// [`try_send`](crate::Sender::try_send) reports [`Full`](crate::TrySendError::Full) only once both they
    /// and the [`write_buffer`](Self::write_buffer) have accumulated. At 128 KB/s, 4 MiB are 33 seconds. Set
    /// this limit where old messages are worth less than new ones, as in games and quotes.
    ///
    /// With this limit, a slow receiver is behind by no more than the sum of:
    ///
    /// - the write buffer, and one message;
    /// - this limit, and about 64 KiB that the last write may add;
    /// - the bytes in flight, for which the receiver has to have room. A receiver that doesn't read has room
    ///   for its receive buffer, on Linux at first 128 KiB.
    ///
    /// Choose the product of rate and tolerable delay, such as 16 KiB for 128 KB/s and 125 ms. The limit has
    /// a price for large messages, which are written in more parts. Measured on loopback with 128 KiB, a
    /// message of 1 MiB takes a fifth more CPU time, and one of 16 KiB takes no more.
    ///
    /// The limit applies to TCP streams, and to TLS and HTTP/2 over TCP, if this crate has opened or accepted
    /// them, or if they were handed to it. Linux and Android have the socket option `TCP_NOTSENT_LOWAT`.
    /// Elsewhere, the setting is the size of the send buffer (`SO_SNDBUF`), which also holds the bytes in
    /// flight, and thereby bounds the throughput to so many bytes per round trip.
    ///
    /// ```
    /// use bowline::{Acceptor, Limits};
    ///
    /// let acceptor = Acceptor::new().limits(Limits::default().write_buffer(8 * 1024).unsent(16 * 1024));
    /// ```
    pub fn unsent(mut self, bytes: usize) -> Self {
        self.unsent = Some(bytes);
        self
    }

    /// Sets the largest number of WebSockets, and of other requests, on one connection of HTTP/2 or HTTP/3 to
    /// a [`Server`](crate::Server). Default: 100, the least that RFC 9113 6.5.2 recommends.
    ///
    /// A stream that was reset counts until its handler has returned. A request beyond the limit waits for a
    /// free place for at most [`handshake_timeout`](Self::handshake_timeout), and is then refused.
    ///
    /// An unread WebSocket holds little more memory than [`stream_window`](Self::stream_window).
    pub fn max_streams(mut self, streams: u32) -> Self {
        self.max_streams = streams;
        self
    }

    /// Sets the number of unread bytes that the peer may send on one WebSocket over HTTP/2 (RFC 9113 5.2) or
    /// HTTP/3 (RFC 9000 4.1). Default: 256 KiB; at least 16 KiB, less than 2 GiB.
    ///
    /// The window bounds the memory of an unread WebSocket, which may hold an eighth more. It also bounds the
    /// throughput of one WebSocket to one window per round trip: 256 KiB are 5 MB/s at a round-trip time of
    /// 50 ms. Each WebSocket has a window of its own, so no WebSocket keeps another waiting.
    pub fn stream_window(mut self, bytes: usize) -> Self {
        self.stream_window = bytes;
        self
    }

    /// Returns the initial window of a stream (RFC 9113 6.9.2).
    #[cfg(all(feature = "http2", any(feature = "client", feature = "server")))]
    pub(crate) fn initial_window_size(&self) -> u32 {
        u32::try_from(self.stream_window).expect("the builders refuse larger ones")
    }

    /// Describes the first setting that is out of its range.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn invalid(&self) -> Option<String> {
        let ranges = [
            ("head_size", self.head_size, MIN_HEAD_SIZE..=usize::MAX),
            ("max_headers", self.max_headers, 0..=MAX_HEADERS),
            ("write_buffer", self.write_buffer, 1..=usize::MAX),
            ("unsent", self.unsent.unwrap_or(1), 1..=MAX_UNSENT),
            ("stream_window", self.stream_window, MIN_STREAM_WINDOW..=MAX_STREAM_WINDOW),
        ];
        let (name, value, range) = ranges.into_iter().find(|(_, value, range)| !range.contains(value))?;
        Some(if value < *range.start() {
            format!("Limits::{name} is {value}, but has to be at least {}", range.start())
        } else {
            format!("Limits::{name} is {value}, but may be at most {}", range.end())
        })
    }
}

#[cfg(all(test, feature = "client", feature = "server"))]
mod tests {
    use crate::{Acceptor, Connector, ErrorKind, Limits};

    #[test]
    fn limits_out_of_range_are_refused_by_name_when_a_builder_is_used() {
        let default = Limits::default;
        for (limits, text) in [
            (default().head_size(8191), "Limits::head_size is 8191, but has to be at least 8192"),
            (default().max_headers(16385), "Limits::max_headers is 16385, but may be at most 16384"),
            (default().write_buffer(0), "Limits::write_buffer is 0, but has to be at least 1"),
            (default().unsent(0), "Limits::unsent is 0, but has to be at least 1"),
            (default().unsent(1 << 31), "Limits::unsent is 2147483648, but may be at most 2147483647"),
            (default().stream_window(16383), "Limits::stream_window is 16383, but has to be at least 16384"),
            (
                default().stream_window(1 << 31),
                "Limits::stream_window is 2147483648, but may be at most 2147483647",
            ),
        ] {
            let by_client = Connector::new().limits(limits.clone()).request("ws://example.com").map(drop);
            let by_server = Acceptor::new().limits(limits).validate();
            for refused in [by_client, by_server] {
                let error = refused.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert_eq!(error.to_string(), text);
            }
        }
    }

    #[test]
    fn limits_at_the_ends_of_their_ranges_are_accepted() {
        let least = Limits::default().head_size(8192).max_headers(0).write_buffer(1).unsent(1);
        let most = Limits::default().head_size(usize::MAX).max_headers(16384).write_buffer(usize::MAX);
        let most = most.unsent((1 << 31) - 1);
        let (least, most) = (least.stream_window(16384), most.stream_window((1 << 31) - 1));
        for limits in [least, most] {
            assert!(Connector::new().limits(limits.clone()).request("ws://example.com").is_ok());
            assert!(Acceptor::new().limits(limits).validate().is_ok());
        }
    }
}
