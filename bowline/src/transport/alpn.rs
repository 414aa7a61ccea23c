//! The protocols that HTTP can be spoken in.

/// A protocol on which client and server can agree in a TLS handshake (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    Http1,
    Http2,
}
