//! The configuration of QUIC and of its TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bowline::{Error, ErrorKind, Limits};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::quic::{ClientConnection, ServerConnection, Version};
use rustls::{ClientConfig, ServerConfig};

/// The protocol that both sides agree on by ALPN (RFC 9114 3.1).
const ALPN: &[u8] = b"h3";

/// The time without a packet from the peer after which a connection has ended.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The interval of packets that keep a silent connection alive: a WebSocket is pinged after 20 to 40 s, which
/// is later than [`IDLE_TIMEOUT`], and NATs forget a UDP flow after 30 s (RFC 9308 3.2). A peer may have a
/// shorter timeout (RFC 9000 10.1), but quinn neither tells it nor changes the interval of a connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The number of unidirectional streams of the peer that are open at once. RFC 9114 6.2 asks for at least
/// three; others may be there to keep this side from relying on that.
const UNI_STREAMS: u32 = 8;

/// The number of bytes on all streams together that wait for the peer's acknowledgement.
///
/// quinn keeps each write on its own: 32 bytes in a queue, and an allocation of at least 32 bytes. An empty
/// message is a write of 4 bytes, so a window of 262,144 such messages takes 17 MB.
pub(crate) const SEND_WINDOW: u64 = 1024 * 1024;

/// The send window for a peer that opens its own windows byte by byte: see [`Session::note_write`].
///
/// [`Session::note_write`]: crate::session::Session::note_write
pub(crate) const NARROW_SEND_WINDOW: u64 = 4 * 1024;

/// The number of connections that wait to be accepted, and the bytes that they may have sent before.
pub(crate) const INCOMING: usize = 1024;
const INCOMING_BYTES: u64 = 16 * 1024;
const INCOMING_BYTES_IN_ALL: u64 = 4 * 1024 * 1024;

fn transport(limits: &Limits, requests: u32) -> TransportConfig {
    let window = u64::try_from(limits.stream_window).unwrap_or(u64::MAX);
    // Each stream has room of its own, so an unread one never blocks another.
    let all = window.saturating_mul(u64::from(limits.max_streams) + u64::from(UNI_STREAMS));
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(requests.into())
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(var_int(window))
        .receive_window(var_int(all))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT).expect("30 s are few milliseconds")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        // RFC 9221 3: without a buffer, the peer may send no datagrams.
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    config
}

fn var_int(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

/// Makes the configuration of a client.
pub(crate) fn client(tls: &ClientConfig, limits: &Limits) -> Result<quinn::ClientConfig, Error> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // RFC 8446 8: early data may be replayed, and a handshake is not idempotent.
    tls.enable_early_data = false;
    let tls = Arc::new(tls);
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    // The only way to learn if the configuration knows TLS 1.3.
    if let Err(error) = ClientConnection::new(Arc::clone(&tls), Version::V1, name, Vec::new()) {
        let text = "HTTP/3 needs TLS 1.3, which the configuration of Connector::tls does not support";
        return Err(Error::with_source(ErrorKind::InvalidInput, text, error));
    }
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| {
        let text = "HTTP/3 needs the cipher suite TLS13_AES_128_GCM_SHA256, which the configuration of \
                    Connector::tls does not have";
        Error::with_source(ErrorKind::InvalidInput, text, error)
    })?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    // RFC 9114 6.1: a server opens no bidirectional streams.
    let mut transport = transport(limits, 0);
    // A client opens as many WebSockets as the server allows.
    transport.receive_window(VarInt::MAX);
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Makes the configuration of a server.
pub(crate) fn server(tls: Option<&Arc<ServerConfig>>, limits: &Limits) -> io::Result<quinn::ServerConfig> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text);
    let tls =
        tls.ok_or_else(|| invalid("HTTP/3 is always encrypted: set a configuration with Server::tls"))?;
    let mut tls = ServerConfig::clone(tls);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    let tls = Arc::new(tls);
    if ServerConnection::new(Arc::clone(&tls), Version::V1, Vec::new()).is_err() {
        return Err(invalid("HTTP/3 needs TLS 1.3, which the configuration of Server::tls does not support"));
    }
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| {
        invalid(
            "HTTP/3 needs the cipher suite TLS13_AES_128_GCM_SHA256, which the configuration of Server::tls \
             does not have",
        )
    })?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(limits, limits.max_streams)))
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_IN_ALL);
    Ok(config)
}
