//! The transport to a server without the library: for commands that write bytes of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use bowline::http::Request;
use bowline::http::header::HOST;
use bowline::http::uri::Authority;
use bowline::rustls::ClientConfig;
use bowline::rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::http3;
use crate::raw_stream::RawStream;

use super::{ConnectError, Route, Target, UsageError, Version, host_and_port};

/// The way to a server, without the opening handshake of WebSockets.
#[derive(Clone)]
pub(crate) struct Dialer {
    target: Target,
    /// The configuration of TLS, if the URL asks for TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// A dialer for `target`, which checks the options, and reads the files of TLS.
    pub(crate) fn new(target: Target) -> Result<Self, UsageError> {
        target.request()?;
        let tls = match target.url.scheme_str() {
            Some("wss" | "https") => Some(target.tls.build()?),
            _ => None,
        };
        Ok(Self { target, tls })
    }

    /// A request of an opening handshake, as HTTP/1.1 has it, with a key of its own.
    pub(crate) fn request(&self) -> Request<()> {
        self.target.request().expect("`new` has made a request of the same options")
    }

    /// Resolves the host. Returns its addresses, or `None` if it is reached by a Unix socket.
    pub(crate) async fn addresses(&self) -> Result<Option<Vec<SocketAddr>>, ConnectError> {
        match &self.target.route {
            Route::Unix(_) => Ok(None),
            Route::Default | Route::Proxy => self.target.resolve(&[], None).await.map(Some),
            Route::Addresses { resolve, family } => self.target.resolve(resolve, *family).await.map(Some),
        }
    }

    /// The scheme and the authority of requests over HTTP/2, by the URL and the Host header of the options.
    pub(crate) fn scheme_and_authority(&self) -> (&'static str, Authority) {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = self.request().headers().get(HOST).cloned();
        let of_host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let (host_of_url, port) = host_and_port(&self.target.url);
        let of_url = || format!("{host_of_url}:{port}").parse().ok();
        let authority = of_host.or_else(of_url);
        (scheme, authority.unwrap_or_else(|| Authority::from_static("localhost")))
    }

    /// Opens a QUIC connection for HTTP/3. No proxy is used, also none of the environment.
    pub(crate) async fn open_http3(&self) -> Result<http3::Connection, ConnectError> {
        let addresses = self.addresses().await?.unwrap_or_default();
        Ok(http3::open(&self.target.connector, &self.target.url, addresses).await?)
    }

    /// Opens TCP or the Unix socket, and TLS if the URL asks for TLS. No proxy is used, also none of the
    /// environment.
    pub(crate) async fn open(&self, version: Version) -> Result<Box<dyn RawStream>, ConnectError> {
        let stream: Box<dyn RawStream> = match &self.target.route {
            Route::Unix(path) => open_unix(path).await?,
            Route::Default | Route::Proxy => Box::new(self.target.dial(&[], None).await?),
            Route::Addresses { resolve, family } => Box::new(self.target.dial(resolve, *family).await?),
        };
        let Some(config) = &self.tls else { return Ok(stream) };
        let (host, _) = host_and_port(&self.target.url);
        let failed =
            |text: String| ConnectError::Dial(format!("the TLS handshake with {host} failed: {text}"));
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| failed(error.to_string()))?;
        let protocol: &[u8] = match version {
            Version::Http1 => b"http/1.1",
            Version::Http2 => b"h2",
            Version::Http3 => return Err(failed("HTTP/3 has no TLS over TCP".into())),
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let connecting = connector.with_alpn(vec![protocol.to_vec()]).connect(name, stream);
        Ok(Box::new(connecting.await.map_err(|error| failed(error.to_string()))?))
    }
}

/// Opens a Unix socket.
#[cfg(unix)]
pub(super) async fn open_unix(path: &std::path::Path) -> Result<Box<dyn RawStream>, ConnectError> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(ConnectError::Dial(format!("connecting to {} failed: {error}", path.display()))),
    }
}

#[cfg(not(unix))]
pub(super) async fn open_unix(_: &std::path::Path) -> Result<Box<dyn RawStream>, ConnectError> {
    Err(ConnectError::Dial("--unix: this system has no Unix sockets".into()))
}
