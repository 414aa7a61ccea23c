//! The compression of messages: permessage-deflate (RFC 7692).
//!
//! This file has the options of an endpoint, and derives from them and the negotiated parameters how each
//! direction is compressed. The codec itself is in `bowline-proto`; [`codec`] replaces it with a stand-in if
//! the feature `deflate` is off.
//!
//! This folder imports nothing else of the crate. A compressor of one connection belongs to
//! `connection::outbound`, a decompressor to `connection::inbound`.

pub(crate) mod codec;

use bowline_proto::{DeflateParameters, Role};

/// The choice of whether messages are compressed (permessage-deflate, RFC 7692), and whether they refer to
/// earlier ones.
///
/// Default: [`Off`](Self::Off). A client offers compression in the opening handshake, and a server accepts
/// the offer. Peers that don't support compression receive uncompressed messages.
/// [`WebSocket::compression`](crate::WebSocket::compression) returns the negotiated parameters, and
/// [`options`](Self::options) changes the details.
///
/// # Examples
///
/// ```
/// use bowline::{Acceptor, Compression};
///
/// let acceptor = Acceptor::new().compression(Compression::NoContextTakeover);
/// let acceptor = Acceptor::new().compression(Compression::ContextTakeover.options().level(9).threshold(64));
/// ```
///
/// # Security
///
/// Don't compress secrets together with data that an attacker may choose: the size of the message tells how
/// much the two have in common (the attacks CRIME and BREACH on TLS). With context takeover, the same is true
/// of successive messages. Send a secret with [`Payload::compress(false)`](crate::Payload::compress).
///
/// # Costs and savings
///
/// Data that is compressed already, such as images, costs time and saves nothing.
///
/// The figures below are for distinct JSON messages at the default level 6. Times are for compressing and for
/// decompressing one message, on one core of a server of 2023; only their ratios carry over to other
/// machines. Level 1 takes a third of the time, and its output is half as large again.
///
/// | | size of 1 KiB | time | size of 16 KiB | time | memory of a connection |
/// |---|---|---|---|---|---|
/// | `Off` | 100 % | | 100 % | | |
/// | `NoContextTakeover` | 26 % | 16 + 4 µs | 16 % | 145 + 29 µs | none between messages |
/// | `ContextTakeover` | 2 % to 26 % | 4 + 2 µs and more | 15 % | 256 + 43 µs | see below |
///
/// Context takeover pays off for small messages that resemble each other. The memory that a connection keeps
/// depends on the [windows](CompressionOptions::server_max_window_bits):
///
/// | window bits | 9 | 10 | 11 | 12 | 13 | 14 | 15 |
/// |---|---|---|---|---|---|---|---|
/// | KB, once it has sent | 251 | 253 | 257 | 265 | 282 | 314 | 380 |
/// | KB at most, once it has received | 0.9 | 1.5 | 2.8 | 5.4 | 10 | 21 | 41 |
///
/// A direction takes no memory before its first compressed message. Without context takeover, connections
/// borrow compressors and decompressors from their thread, which keeps at most four of each and a buffer of
/// 64 KiB: 1.8 MB in all.
///
/// The call that sends a message also compresses it: 1 MiB takes about 9 ms, during which its thread does
/// nothing else. A [`MessageWriter`](crate::MessageWriter) lets other tasks run in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Neither offers nor accepts compression.
    #[default]
    Off,
    /// Compresses each message by itself, in both directions.
    NoContextTakeover,
    /// Lets messages refer to earlier ones, in each direction in which the peer agrees.
    ContextTakeover,
}

impl Compression {
    /// Returns options with this choice and default details.
    pub fn options(self) -> CompressionOptions {
        self.into()
    }
}

/// A [`Compression`] with its details.
///
/// An option out of its range is reported as [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput),
/// with its name, when the [`Connector`](crate::Connector) or [`Acceptor`](crate::Acceptor) is used.
///
/// # Examples
///
/// ```
/// use bowline::{Compression, Connector};
///
/// let options = Compression::ContextTakeover.options().level(1).server_max_window_bits(11);
/// let connector = Connector::new().compression(options);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionOptions {
    compression: Compression,
    level: u8,
    server_max_window_bits: u8,
    client_max_window_bits: u8,
    threshold: Option<usize>,
}

impl From<Compression> for CompressionOptions {
    fn from(compression: Compression) -> Self {
        Self {
            compression,
            level: 6,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
            threshold: None,
        }
    }
}

impl CompressionOptions {
    /// Sets the compression level, from 1 (fastest) to 9 (smallest). Default: 6.
    pub fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    /// Sets the largest window of the server, from 9 to 15 bits. Default: 15.
    ///
    /// The server's messages refer to at most the last `2^bits` bytes (RFC 7692 7.1.2.1). With context
    /// takeover, the window bounds the memory of the server's compressor and of the client's decompressor.
    pub fn server_max_window_bits(mut self, bits: u8) -> Self {
        self.server_max_window_bits = bits;
        self
    }

    /// Sets the largest window of the client, from 9 to 15 bits. Default: 15.
    ///
    /// The client's messages refer to at most the last `2^bits` bytes (RFC 7692 7.1.2.2). A server can't
    /// limit the window of a client that does not offer `client_max_window_bits`.
    pub fn client_max_window_bits(mut self, bits: u8) -> Self {
        self.client_max_window_bits = bits;
        self
    }

    /// Sets the minimum size, in bytes, of messages to compress. Default: 128 with context takeover, 512
    /// without.
    ///
    /// [`Payload::compress`](crate::Payload::compress) overrides the threshold for one message.
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = Some(bytes);
        self
    }

    /// Describes the first option that is out of its range.
    pub(crate) fn invalid(&self) -> Option<String> {
        let bits = DeflateParameters::MIN_WINDOW_BITS..=15;
        let windows = [
            ("server_max_window_bits", self.server_max_window_bits),
            ("client_max_window_bits", self.client_max_window_bits),
        ];
        if !(1..=9).contains(&self.level) {
            return Some(format!("CompressionOptions::level is {}, but has to be from 1 to 9", self.level));
        }
        let (name, value) = windows.into_iter().find(|(_, value)| !bits.contains(value))?;
        Some(format!("CompressionOptions::{name} is {value}, but has to be from 9 to 15"))
    }

    /// Returns the parameters to ask for in a handshake, or `None` if compression is off.
    pub(crate) fn wish(&self) -> Option<DeflateParameters> {
        let no_context_takeover = match self.compression {
            Compression::Off => return None,
            Compression::NoContextTakeover => true,
            Compression::ContextTakeover => false,
        };
        Some(DeflateParameters {
            server_no_context_takeover: no_context_takeover,
            client_no_context_takeover: no_context_takeover,
            server_max_window_bits: self.server_max_window_bits,
            client_max_window_bits: self.client_max_window_bits,
        })
    }

    /// Returns the settings of the compressor of `role`, or `None` if `role` can't compress.
    pub(crate) fn of_sender(&self, agreed: DeflateParameters, role: Role) -> Option<CompressorSettings> {
        let DeflateWindow { bits, is_taken_over } = DeflateWindow::of(agreed, role);
        // RFC 7692 7.1.2.2: an endpoint may always send uncompressed messages, whatever the window.
        let possible = bits >= DeflateParameters::MIN_WINDOW_BITS;
        let threshold = self.threshold.unwrap_or(if is_taken_over { 128 } else { 512 });
        possible.then_some(CompressorSettings {
            level: self.level,
            window_bits: bits,
            is_taken_over,
            threshold,
        })
    }
}

/// The settings of the compressor of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompressorSettings {
    pub(crate) level: u8,
    pub(crate) window_bits: u8,
    pub(crate) is_taken_over: bool,
    /// The minimum size, in bytes, of messages to compress.
    pub(crate) threshold: usize,
}

/// The window of one direction: the part of the past that messages may refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeflateWindow {
    pub(crate) bits: u8,
    pub(crate) is_taken_over: bool,
}

impl DeflateWindow {
    /// Returns the window of the messages that `sender` sends.
    pub(crate) fn of(agreed: DeflateParameters, sender: Role) -> Self {
        match sender {
            Role::Server => Self {
                bits: agreed.server_max_window_bits,
                is_taken_over: !agreed.server_no_context_takeover,
            },
            Role::Client => Self {
                bits: agreed.client_max_window_bits,
                is_taken_over: !agreed.client_no_context_takeover,
            },
        }
    }
}
