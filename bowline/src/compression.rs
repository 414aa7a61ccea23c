//! The compression of messages: permessage-deflate (RFC 7692).
//!
//! This file has the options of an endpoint, and derives from them and the negotiated parameters how each direction is
//! compressed. The codec itself is in `bowline-proto`; [`codec`] replaces it with a stand-in if the feature
//! `deflate` is off.
//!
//! This folder lies below `message` and `connection` and imports neither. A compressor of one connection belongs to
//! `connection::outbound`, a decompressor to `connection::inbound`.

pub(crate) mod codec;

use bowline_proto::{DeflateParameters, Role};

/// Whether messages are compressed, and whether they refer to earlier ones. Off by default.
///
/// It is offered, or accepted, in the opening handshake; a peer that has it not is talked to without. What was agreed on is
/// [`WebSocket::compression`](crate::WebSocket::compression). Details are changed with [`options`](Self::options).
///
/// # When not to
///
/// Do not compress secrets together with what an attacker may choose: the size of the message tells how much they have in
/// common (the attacks CRIME and BREACH on TLS). With context takeover that goes for messages one after the other, too. Send
/// a secret with [`Payload::compress(false)`](crate::Payload::compress).
///
/// Nor what is compressed already, such as images: it takes the time and saves nothing.
///
/// # What it costs, and what it saves
///
/// Measured with messages of JSON, each unlike the others, at the default level 6; the time is that of compressing and of
/// decompressing one on one core of a server of 2023, and says little but how the figures compare. At level 1 it is a third,
/// and what is left half as much again.
///
/// | | size of 1 KiB | time | size of 16 KiB | time | memory of a connection |
/// |---|---|---|---|---|---|
/// | `Off` | 100 % | | 100 % | | |
/// | `NoContextTakeover` | 26 % | 16 + 4 µs | 16 % | 145 + 29 µs | none between messages: compressors are lent |
/// | `ContextTakeover` | 2 % to 26 % | 4 + 2 µs and more | 15 % | 256 + 43 µs | once it has sent: 250 to 380 KB; once it has received: up to 40 KB |
///
/// Context takeover pays for small messages that are much alike. Its memory depends on the
/// [windows](CompressionOptions::server_max_window_bits):
///
/// | bits | 9 | 10 | 11 | 12 | 13 | 14 | 15 |
/// |---|---|---|---|---|---|---|---|
/// | one that has sent, KB | 251 | 253 | 257 | 265 | 282 | 314 | 380 |
/// | one that has received, at most, KB | 0.9 | 1.5 | 2.8 | 5.4 | 10 | 21 | 41 |
///
/// Nothing is taken for a direction before it has carried a compressed message. What is lent, each thread keeps: at most four
/// compressors, four decompressors and a buffer of 64 KiB, which are 1.8 MB.
///
/// A message is compressed at once, by the call that sends it: 1 MiB takes about 9 ms, in which its thread does nothing
/// else. A [`MessageWriter`](crate::MessageWriter) lets others run in between.
///
/// ```
/// use bowline::{Acceptor, Compression};
///
/// let acceptor = Acceptor::new().compression(Compression::NoContextTakeover);
/// let acceptor = Acceptor::new().compression(Compression::ContextTakeover.options().level(9).threshold(64));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not offered, and declined.
    #[default]
    Off,
    /// Each message is compressed by itself, in both directions.
    NoContextTakeover,
    /// Messages refer to earlier ones, unless the peer does not want it.
    ContextTakeover,
}

impl Compression {
    /// The same, with details to be changed.
    pub fn options(self) -> CompressionOptions {
        self.into()
    }
}

/// A [`Compression`] with its details.
#[derive(Clone, Copy, Debug)]
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
    /// How much time is spent on a message: from 1, the fastest, to 9, the smallest. Default: 6.
    pub fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    /// The largest window of the server, from 9 to 15 bits: a message refers to at most `2^bits` bytes before it.
    /// Default: 15.
    ///
    /// It bounds the memory that context takeover takes: of the server's compressor, and of the client's decompressor.
    pub fn server_max_window_bits(mut self, bits: u8) -> Self {
        self.server_max_window_bits = bits;
        self
    }

    /// The same for the client's window. Default: 15. A client that does not offer it can't be held to it.
    pub fn client_max_window_bits(mut self, bits: u8) -> Self {
        self.client_max_window_bits = bits;
        self
    }

    /// From how many bytes on a message is compressed. Default: 128 with context takeover, 512 without.
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = Some(bytes);
        self
    }

    /// What makes no sense.
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

    /// Panics if nobody can have agreed on these parameters, or if the options make no sense.
    #[cfg(feature = "deflate")]
    pub(crate) fn assert_fits(&self, agreed: DeflateParameters) {
        let windows = [agreed.server_max_window_bits, agreed.client_max_window_bits];
        let possible = windows.iter().all(|bits| (8..=15).contains(bits));
        assert!(possible, "a window of {windows:?} bits can't have been agreed on");
        let invalid = self.invalid();
        assert!(invalid.is_none(), "{}", invalid.unwrap_or_default());
    }

    /// What is wished of a handshake; `None` if it is off.
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

    /// How `role` compresses what it sends; `None` if it can't.
    pub(crate) fn of_sender(&self, agreed: DeflateParameters, role: Role) -> Option<CompressorSettings> {
        let DeflateWindow { bits, is_taken_over } = DeflateWindow::of(agreed, role);
        // RFC 7692 7.1.2.2: to compress nothing fits any window.
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

/// How messages of one direction are compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompressorSettings {
    pub(crate) level: u8,
    pub(crate) window_bits: u8,
    pub(crate) is_taken_over: bool,
    /// From how many bytes on.
    pub(crate) threshold: usize,
}

/// The window of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeflateWindow {
    pub(crate) bits: u8,
    pub(crate) is_taken_over: bool,
}

impl DeflateWindow {
    /// That in which `sender` refers to what it has sent.
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
