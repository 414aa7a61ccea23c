//! The stream of bytes to a server: TCP, or TLS over TCP.

#[cfg(not(feature = "tls"))]
#[path = "transport/absent.rs"]
mod tls;
#[cfg(feature = "tls")]
#[path = "transport/tls.rs"]
mod tls;

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use tls::secure;

/// A stream of bytes.
pub(crate) type Transport = Box<dyn ByteStream>;

pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> ByteStream for S {}

/// Returns the name that the certificate of a server must have. Servers of a cluster name each other by their
/// IP addresses. Their certificates have the name that the application has used.
pub(crate) fn server_name<'a>(address: &'a str, first: &'a str) -> &'a str {
    let host = |address: &'a str| {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    };
    let (this, first) = (host(address), host(first));
    if this.parse::<IpAddr>().is_ok() { first } else { this }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_cluster_has_the_name_of_the_first_server() {
        assert_eq!(server_name("a.example:4222", "b.example:4222"), "a.example");
        assert_eq!(server_name("10.0.0.1:4222", "b.example:4222"), "b.example");
        assert_eq!(server_name("[::1]:4222", "[::2]:4222"), "::2");
    }
}
