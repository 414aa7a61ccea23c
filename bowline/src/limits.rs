//! What a peer may cost us.

use std::time::Duration;

/// hyper panics if its buffer is to be smaller.
#[cfg(any(feature = "client", feature = "server"))]
const MIN_HEAD_SIZE: usize = 8 * 1024;

/// An `http::HeaderMap` panics when it is to hold more than some 24,000 headers.
#[cfg(any(feature = "client", feature = "server"))]
const MAX_HEADERS: usize = 16 * 1024;

/// The largest frame that a peer may send without being asked (RFC 9113 4.2).
#[cfg(all(feature = "http2", any(feature = "client", feature = "server")))]
const MIN_STREAM_WINDOW: usize = 16 * 1024;

/// RFC 9113 6.9.1: a window is no larger.
#[cfg(all(feature = "http2", any(feature = "client", feature = "server")))]
const MAX_STREAM_WINDOW: usize = (1 << 31) - 1;

/// The limits of a connection, all in one place. Each has a default that is on.
///
/// A message over a limit closes the connection, a head over one fails the handshake, and so does a deadline; the error names
/// the limit and its setting. Where more would only take memory, the sender waits: for the
/// [write buffer](Self::write_buffer), and for the streams and the windows of HTTP/2. After
/// [`close_timeout`](Self::close_timeout), the transport is dropped.
///
/// ```
/// use bowline::Limits;
///
/// let limits = Limits::default().message_size(16 * 1024 * 1024);
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    pub(crate) message_size: usize,
    pub(crate) frames_per_message: u32,
    pub(crate) head_size: usize,
    pub(crate) max_headers: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) write_buffer: usize,
    #[cfg(feature = "http2")]
    pub(crate) max_streams: u32,
    #[cfg(feature = "http2")]
    stream_window: usize,
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
            #[cfg(feature = "http2")]
            max_streams: 100,
            #[cfg(feature = "http2")]
            stream_window: 256 * 1024,
        }
    }
}

impl Limits {
    /// The largest message that is received, in bytes. Default: 1 MiB.
    ///
    /// A larger one closes the connection with 1009 as soon as its size is known, before memory is taken for it. The size of
    /// a compressed message is that of what comes out. In compressed form, a message may take twice the limit and 256 KiB: no
    /// compressor needs as much, but a peer could send blocks without content for ever. A deflate stream that ends inside a
    /// message counts for 64 bytes more.
    pub fn message_size(mut self, bytes: usize) -> Self {
        self.message_size = bytes;
        self
    }

    /// The most frames that a received message may be fragmented into, empty ones included. Default: 16,384.
    ///
    /// More close the connection with 1008.
    pub fn frames_per_message(mut self, frames: u32) -> Self {
        self.frames_per_message = frames;
        self
    }

    /// The largest head of a request or response in the opening handshake, in bytes. Default: 16 KiB; at least 8 KiB.
    ///
    /// A larger one fails the handshake. A server answers it with 431.
    pub fn head_size(mut self, bytes: usize) -> Self {
        self.head_size = bytes;
        self
    }

    /// The most headers in a request or response of the opening handshake. Default: 100; at most 16,384.
    ///
    /// More fail the handshake. A server answers them with 431.
    pub fn max_headers(mut self, headers: usize) -> Self {
        self.max_headers = headers;
        self
    }

    /// How long the opening handshake may take, from dialling or accepting until the connection is open; TLS, proxies
    /// and name resolution included. Default: 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long the end of a connection may take, from our Close frame, or the peer's, until the transport has ended.
    /// Default: 5 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How many bytes may wait to be written before senders wait, in bytes. Default: 64 KiB.
    ///
    /// It is a high-water mark: a message is accepted whole while less than this waits. As long as the transport takes all,
    /// replies to messages that arrived together gather up to four times as much, and leave with one write.
    /// Over HTTP/2, up to 64 KiB more wait in the HTTP/2 connection.
    pub fn write_buffer(mut self, bytes: usize) -> Self {
        self.write_buffer = bytes;
        self
    }

    /// The most WebSockets, and other requests, that one HTTP/2 connection to a [`Server`](crate::Server) may have open.
    /// Default: 100, which RFC 9113 6.5.2 recommends as the least.
    ///
    /// A client waits until there is room. A WebSocket that is not read holds little more than
    /// [`stream_window`](Self::stream_window). Streams that were reset count as well until their handler has returned.
    /// A request that finds no room waits for it, for [`handshake_timeout`](Self::handshake_timeout) at most, and is then refused.
    #[cfg(feature = "http2")]
    pub fn max_streams(mut self, streams: u32) -> Self {
        self.max_streams = streams;
        self
    }

    /// How many bytes the peer may send on one WebSocket over HTTP/2 before they are read (RFC 9113 5.2). Default: 256 KiB;
    /// at least 16 KiB, less than 2 GiB.
    ///
    /// It bounds what one that is not read holds in memory, but for an eighth more, and what one can receive in a round trip: 256 KiB are 5 MB/s over
    /// 50 ms. Each has a window of its own, so that none of them keeps another waiting.
    #[cfg(feature = "http2")]
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
            #[cfg(feature = "http2")]
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
            #[cfg(feature = "http2")]
            (default().stream_window(16383), "Limits::stream_window is 16383, but has to be at least 16384"),
            #[cfg(feature = "http2")]
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
        let least = Limits::default().head_size(8192).max_headers(0).write_buffer(1);
        let most = Limits::default().head_size(usize::MAX).max_headers(16384).write_buffer(usize::MAX);
        #[cfg(feature = "http2")]
        let (least, most) = (least.stream_window(16384), most.stream_window((1 << 31) - 1));
        for limits in [least, most] {
            assert!(Connector::new().limits(limits.clone()).request("ws://example.com").is_ok());
            assert!(Acceptor::new().limits(limits).validate().is_ok());
        }
    }
}
