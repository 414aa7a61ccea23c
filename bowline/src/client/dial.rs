//! Name resolution, TCP connections and proxies, by hyper-util.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use tokio::net::lookup_host;
use tower_service::Service;

use crate::client::times::Resolution;
use crate::error::{Error, ErrorKind};
use crate::transport::alpn::Alpn;
use crate::transport::byte_stream::ByteStream;
use crate::transport::tls::{self, ClientTls};

/// The conventional port of SOCKS proxies (RFC 1928 3).
const SOCKS_PORT: u16 = 1080;

/// Connects to the host and port of `target`.
pub(crate) async fn dial(target: Uri, resolution: &Resolution) -> Result<ByteStream, Error> {
    let text = format!("connecting to {} failed", address(&target));
    dial_tcp(target, resolution).await.map_err(|error| Error::with_source(ErrorKind::Io, text, error))
}

/// Connects to the host and port of `target` through a proxy. A proxy that is reached by TLS has the
/// configuration `tls`.
pub(crate) async fn dial_through(
    proxy: &Intercept,
    target: Uri,
    tls: Option<ClientTls>,
    resolution: &Resolution,
) -> Result<ByteStream, Error> {
    let text = refusal(proxy, &target);
    let connector = |security| ProxyConnector { security, resolution: resolution.clone() };
    match proxy.uri().scheme_str() {
        Some("socks5h") => call(socks(proxy, connector(ProxySecurity::Plain)), target, text).await,
        Some("socks5") => {
            // hyper-util would resolve the name by a call that blocks the thread.
            let target = resolve(target, resolution).await?;
            call(socks(proxy, connector(ProxySecurity::Plain)), target, text).await
        }
        Some("https") => call(tunnel(proxy, connector(ProxySecurity::Tls(tls))), target, text).await,
        _ => call(tunnel(proxy, connector(ProxySecurity::Plain)), target, text).await,
    }
}

/// Connects by TCP, and reports when the name is resolved.
async fn dial_tcp(
    target: Uri,
    resolution: &Resolution,
) -> Result<ByteStream, Box<dyn StdError + Send + Sync>> {
    let resolver = TimedResolver { resolver: GaiResolver::new(), resolution: resolution.clone() };
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    Ok(ByteStream::Tcp(connector.call(target).await?.into_inner()))
}

fn tunnel(proxy: &Intercept, connector: ProxyConnector) -> Tunnel<ProxyConnector> {
    let tunnel = Tunnel::new(proxy.uri().clone(), connector);
    match proxy.basic_auth() {
        Some(credentials) => tunnel.with_auth(credentials.clone()),
        None => tunnel,
    }
}

fn socks(proxy: &Intercept, connector: ProxyConnector) -> SocksV5<ProxyConnector> {
    let uri = proxy.uri();
    let uri =
        if uri.port().is_some() { uri.clone() } else { with_address(uri, &address_with(uri, SOCKS_PORT)) };
    let socks = SocksV5::new(uri, connector);
    match proxy.raw_auth() {
        Some((user, password)) => socks.with_auth(user.to_owned(), password.to_owned()),
        None => socks,
    }
}

async fn call<C>(mut connector: C, target: Uri, failure: String) -> Result<ByteStream, Error>
where
    C: Service<Uri, Response = TokioIo<ByteStream>>,
    C::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    match connector.call(target).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(error) => Err(Error::with_source(ErrorKind::Io, failure, error)),
    }
}

/// Resolves the host of `target`, and returns the URL with an address instead of the name.
async fn resolve(target: Uri, resolution: &Resolution) -> Result<Uri, Error> {
    let host = address(&target);
    let addresses = lookup_host(&host).await.and_then(|mut addresses| {
        addresses.next().ok_or_else(|| io::Error::other("the name has no addresses"))
    });
    if target.host().is_some_and(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()) {
        resolution.resolved();
    }
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

/// The connector that hyper-util calls to reach a proxy.
struct ProxyConnector {
    security: ProxySecurity,
    resolution: Resolution,
}

/// The way to a proxy, above TCP.
#[derive(Clone)]
enum ProxySecurity {
    Plain,
    Tls(Option<ClientTls>),
}

impl Service<Uri> for ProxyConnector {
    type Response = TokioIo<ByteStream>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        let (security, resolution) = (self.security.clone(), self.resolution.clone());
        Box::pin(async move {
            let ProxySecurity::Tls(config) = security else {
                return dial_tcp(proxy, &resolution).await.map(TokioIo::new);
            };
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
