//! The way from a host to a QUIC connection.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bowline::{Error, ErrorKind};
use http::Uri;
use quinn::{ClientConfig, ConnectError, Endpoint, EndpointConfig, TokioRuntime};
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::session::connection_error;
use crate::udp::endpoint_socket;

/// The default port of `https` and `wss`.
const PORT: u16 = 443;

/// The time after which the next address is tried, too (RFC 8305 5).
const NEXT_ATTEMPT: Duration = Duration::from_millis(250);

/// The time for which the last attempt is waited for: as long as the caller does.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// A connection, and the socket that it uses.
pub(crate) struct Dialled {
    pub(crate) endpoint: Endpoint,
    pub(crate) quic: quinn::Connection,
}

/// Returns the host of `uri`, without the brackets of an IPv6 address.
pub(crate) fn host_of(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_matches(['[', ']'])
}

/// Resolves the host of `uri`.
pub(crate) async fn resolve(uri: &Uri) -> Result<Vec<SocketAddr>, Error> {
    let host = host_of(uri);
    let resolving = lookup_host((host, uri.port_u16().unwrap_or(PORT))).await;
    let addresses = resolving
        .map_err(|error| Error::with_source(ErrorKind::Io, format!("resolving {host} failed"), error))?;
    Ok(addresses.collect())
}

/// Connects to the first of the addresses that answers, as the host of `uri`.
pub(crate) async fn dial(
    uri: &Uri,
    addresses: Vec<SocketAddr>,
    config: ClientConfig,
) -> Result<Dialled, Error> {
    let host = host_of(uri).to_owned();
    let mut addresses = addresses.into_iter().peekable();
    let (mut attempts, mut failed) = (JoinSet::new(), None);
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(attempt(address, host.clone(), config.clone()));
        }
        let patience = if addresses.peek().is_some() { NEXT_ATTEMPT } else { FAR };
        match timeout(patience, attempts.join_next()).await {
            Ok(Some(Ok(Ok(dialled)))) => return Ok(dialled),
            Ok(Some(Ok(Err(error)))) => failed = Some(error),
            // It is time for the next attempt, or a task has ended with its runtime.
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) => {
                let none = || Error::new(ErrorKind::Io, format!("the name {host} has no addresses"));
                return Err(failed.unwrap_or_else(none));
            }
        }
    }
}

async fn attempt(address: SocketAddr, host: String, config: ClientConfig) -> Result<Dialled, Error> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let opening = UdpSocket::bind(any).and_then(endpoint_socket).and_then(|socket| {
        Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
    });
    let endpoint =
        opening.map_err(|error| Error::with_source(ErrorKind::Io, "opening a UDP socket failed", error))?;
    let connecting = endpoint.connect_with(config, address, &host).map_err(|error| {
        let kind = match &error {
            ConnectError::InvalidServerName(_) => ErrorKind::InvalidInput,
            _ => ErrorKind::Io,
        };
        Error::with_source(kind, format!("connecting to {address} over QUIC failed"), error)
    })?;
    let quic = connecting.await.map_err(connection_error)?;
    Ok(Dialled { endpoint, quic })
}
