//! Name resolution, TCP connections and proxies, by hyper-util.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tower_service::Service;

use crate::client::times::Resolution;
use crate::error::{Error, ErrorKind};
use crate::transport::alpn::Alpn;
use crate::transport::tls::{self, ClientTls, ClientTlsStream};

/// The conventional port of SOCKS proxies (RFC 1928 3).
const SOCKS_PORT: u16 = 1080;

/// Connects to the host and port of `target`.
pub(crate) async fn dial(target: Uri, resolution: &Resolution) -> Result<TcpStream, Error> {
    let text = format!("connecting to {} failed", address(&target));
    call(tcp_connector(resolution), target, text).await
}

/// Connects to the host and port of `target` through a proxy that is reached by TCP.
pub(crate) async fn dial_through(
    proxy: &Intercept,
    target: Uri,
    resolution: &Resolution,
) -> Result<TcpStream, Error> {
    let text = refusal(proxy, &target);
    let tcp = tcp_connector(resolution);
    match proxy.uri().scheme_str() {
        Some("socks5h") => call(socks(proxy, tcp), target, text).await,
        // hyper-util would resolve the name by a call that blocks the thread.
        Some("socks5") => call(socks(proxy, tcp), resolve(target).await?, text).await,
        _ => call(tunnel(proxy, tcp), target, text).await,
    }
}

/// A connector for TCP that reports when it has resolved a name.
fn tcp_connector(resolution: &Resolution) -> HttpConnector<TimedResolver> {
    let resolver = TimedResolver { resolver: GaiResolver::new(), resolution: resolution.clone() };
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector
}

fn tunnel<C>(proxy: &Intercept, connector: C) -> Tunnel<C> {
    let tunnel = Tunnel::new(proxy.uri().clone(), connector);
    match proxy.basic_auth() {
        Some(credentials) => tunnel.with_auth(credentials.clone()),
        None => tunnel,
    }
}

fn socks<C>(proxy: &Intercept, connector: C) -> SocksV5<C> {
    let uri = proxy.uri();
    let uri =
        if uri.port().is_some() { uri.clone() } else { with_address(uri, &address_with(uri, SOCKS_PORT)) };
    let socks = SocksV5::new(uri, connector);
    match proxy.raw_auth() {
        Some((user, password)) => socks.with_auth(user.to_owned(), password.to_owned()),
        None => socks,
    }
}

async fn call<C, S>(mut connector: C, target: Uri, failure: String) -> Result<S, Error>
where
    C: Service<Uri, Response = TokioIo<S>>,
    C::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    match connector.call(target).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(error) => Err(Error::with_source(ErrorKind::Io, failure, error)),
    }
}

/// Resolves the host of `target`, and returns the URL with an address instead of the name.
async fn resolve(target: Uri) -> Result<Uri, Error> {
    let host = address(&target);
    let addresses = lookup_host(&host).await.and_then(|mut addresses| {
        addresses.next().ok_or_else(|| io::Error::other("the name has no addresses"))
    });
    match addresses {
        Ok(address) => Ok(with_address(&target, &address.to_string())),
        Err(error) => Err(Error::with_source(ErrorKind::Io, format!("resolving {host} failed"), error)),
    }
}

fn with_address(uri: &Uri, address: &str) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(address.parse().expect("a socket address is an authority"));
    Uri::from_parts(parts).expect("only the authority changed, into another")
}

fn address_with(uri: &Uri, port: u16) -> String {
    format!("{}:{port}", uri.host().unwrap_or_default())
}

fn address(uri: &Uri) -> &str {
    uri.authority().map_or("", http::uri::Authority::as_str)
}

fn refusal(proxy: &Intercept, target: &Uri) -> String {
    format!("connecting to {} through the proxy {} failed", address(target), address(proxy.uri()))
}

/// Connects to the host and port of `target` through a proxy that is reached by TLS.
pub(crate) async fn dial_through_tls(
    proxy: &Intercept,
    target: Uri,
    config: Option<ClientTls>,
    resolution: &Resolution,
) -> Result<ClientTlsStream<TcpStream>, Error> {
    let failure = refusal(proxy, &target);
    let connector = ProxyTlsConnector { config, resolution: resolution.clone() };
    call(tunnel(proxy, connector), target, failure).await
}

/// The connector that hyper-util's tunnel calls to reach a proxy by TLS.
struct ProxyTlsConnector {
    config: Option<ClientTls>,
    resolution: Resolution,
}

impl Service<Uri> for ProxyTlsConnector {
    type Response = TokioIo<ClientTlsStream<TcpStream>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        let (config, resolution) = (self.config.clone(), self.resolution.clone());
        Box::pin(async move {
            let host = proxy.host().unwrap_or_default().trim_matches(['[', ']']);
            let server = tls::server_name(host)?;
            let stream = dial(proxy, &resolution).await?;
            let (stream, _) = tls::connect(config, &[Alpn::Http1], server, stream).await?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// The resolver of hyper-util, which reports when it is done.
#[derive(Clone)]
struct TimedResolver {
    resolver: GaiResolver,
    resolution: Resolution,
}

impl Service<Name> for TimedResolver {
    type Response = GaiAddrs;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<GaiAddrs>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolving, resolution) = (self.resolver.call(name), self.resolution.clone());
        Box::pin(async move {
            let addresses = resolving.await?;
            resolution.resolved();
            Ok(addresses)
        })
    }
}
