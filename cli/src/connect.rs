//! The options with which a server is reached, shared by all commands that are clients.
//!
//! [`ConnectArguments`] are the options as clap reads them. [`ConnectArguments::target`] checks them, reads
//! the files that they name, and returns a [`Target`], which connects any number of times.

mod error;
pub(crate) mod tls;
mod transport;
mod values;

pub(crate) use error::{ConnectError, UsageError, in_options};
pub(crate) use transport::Dialer;
pub(crate) use values::Size;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::{fmt, fs, io};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bowline::http::header::{AUTHORIZATION, HeaderValue};
use bowline::http::{Request, Response, Uri};
use bowline::{Compression, Connector, ControlFrame, HttpVersion, Limits, Proxy, Reconnecting, WebSocket};
use clap::{Args, ValueEnum};
use tokio::net::{TcpStream, lookup_host};
use values::{Header, Resolve};

use crate::http3;

/// The options with which a server is reached.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConnectArguments {
    /// The server: a ws://, wss://, http:// or https:// URL. Without a scheme, ws:// is assumed, and wss://
    /// with --http 3
    // Without the heading that a command may have set before.
    #[arg(value_name = "URL", help_heading = None::<&str>)]
    pub(crate) url: String,
    /// Add a header to the request; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE", help_heading = "Request")]
    header: Vec<Header>,
    /// Basic authentication
    #[arg(short, long, value_name = "USER:PASSWORD", conflicts_with = "bearer", help_heading = "Request")]
    user: Option<String>,
    /// Bearer token, or @FILE to read it from a file
    #[arg(long, value_name = "TOKEN", help_heading = "Request")]
    bearer: Option<String>,
    /// Offer a subprotocol; may be repeated, the preferred one first
    #[arg(short, long, value_name = "NAME", help_heading = "Request")]
    subprotocol: Vec<String>,
    /// The Origin header
    #[arg(long, value_name = "ORIGIN", help_heading = "Request")]
    origin: Option<String>,
    /// The Host header, instead of the URL's host
    #[arg(long, value_name = "HOST", help_heading = "Request")]
    host: Option<String>,
    /// Connect to this address when the URL has this host and port; may be repeated
    #[arg(long, value_name = "HOST:PORT:ADDRESS", help_heading = "Connection")]
    resolve: Vec<Resolve>,
    /// Connect through a Unix socket
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with_all = ["resolve", "proxy", "ipv4", "ipv6"],
        help_heading = "Connection",
    )]
    unix: Option<PathBuf>,
    /// Use IPv4 addresses alone
    #[arg(short = '4', long, conflicts_with = "ipv6", help_heading = "Connection")]
    ipv4: bool,
    /// Use IPv6 addresses alone
    #[arg(short = '6', long, help_heading = "Connection")]
    ipv6: bool,
    /// Proxy (http://, https://, socks5:// or socks5h://), or `none`. Default: from the environment
    #[arg(
        long,
        value_name = "URL",
        conflicts_with_all = ["ipv4", "ipv6", "resolve"],
        help_heading = "Connection",
    )]
    proxy: Option<String>,
    /// The version of HTTP. 3 is over QUIC (UDP), and needs wss://
    #[arg(long, value_enum, value_name = "VERSION", default_value_t, help_heading = "Connection")]
    http: Version,
    /// Offer compression (permessage-deflate)
    #[arg(short = 'z', long, help_heading = "Connection")]
    compress: bool,
    /// The largest message, in bytes, or with K, M or G
    #[arg(long, value_name = "SIZE", default_value = "64M", help_heading = "Connection")]
    max_size: Size,
    #[command(flatten)]
    tls: tls::TlsArguments,
}

/// The version of HTTP to use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Version {
    /// HTTP/1.1
    #[default]
    #[value(name = "1.1")]
    Http1,
    /// HTTP/2 (RFC 8441)
    #[value(name = "2")]
    Http2,
    /// HTTP/3 (RFC 9220)
    #[value(name = "3")]
    Http3,
}

/// A server, and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    url: Uri,
    version: Version,
    connector: Connector,
    route: Route,
    tls: tls::TlsArguments,
}

/// The way in which the transport to the server is opened.
#[derive(Clone, Debug)]
enum Route {
    /// By the library: name resolution, and TCP.
    Default,
    /// By the library, through a proxy.
    Proxy,
    /// By TCP to one of the addresses that the options leave.
    Addresses {
        resolve: Vec<Resolve>,
        family: Option<Family>,
    },
    Unix(PathBuf),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Target {
    /// A server of this machine, which no option and no proxy of the environment concerns.
    pub(crate) fn local(url: Uri) -> Self {
        Self {
            url,
            version: Version::Http1,
            connector: Connector::new().proxy(Proxy::none()).limits(limits(64 << 20)),
            route: Route::Default,
            tls: tls::TlsArguments::default(),
        }
    }
}

/// The limits of a client whose messages have at most this size.
fn limits(message_size: usize) -> Limits {
    Limits::default().message_size(message_size).frames_per_message(u32::MAX)
}

impl ConnectArguments {
    /// Checks the options, and reads the files that they name.
    pub(crate) fn target(&self) -> Result<Target, UsageError> {
        let url = parse_url(&self.url, self.http)?;
        if self.http == Version::Http3 {
            self.check_http3(&url)?;
        }
        let mut connector = Connector::new()
            .subprotocols(self.subprotocol.iter().map(String::as_str))
            .limits(limits(self.max_size.0));
        for Header(name, value) in &self.header {
            // Host, Origin and the subprotocols have methods of their own, but users of curl give them so.
            connector = match name.as_str() {
                "host" => connector.host(value.clone()),
                "origin" => connector.origin(value.clone()),
                _ => connector.header(name.clone(), value.clone()),
            };
        }
        if let Some(host) = &self.host {
            connector = connector.host(host.as_str());
        }
        if let Some(origin) = &self.origin {
            connector = connector.origin(origin.as_str());
        }
        if let Some(value) = self.authorization()? {
            connector = connector.header(AUTHORIZATION, value);
        }
        if self.compress {
            connector = connector.compression(Compression::ContextTakeover);
        }
        connector = connector.http_version(match self.http {
            Version::Http1 => HttpVersion::Http1,
            Version::Http2 => HttpVersion::Http2,
            // `http3` does not ask the connector for a version.
            Version::Http3 => HttpVersion::default(),
        });
        match self.proxy.as_deref() {
            None => {}
            Some("none") => connector = connector.proxy(Proxy::none()),
            Some(proxy) => {
                connector = connector
                    .proxy(proxy.parse().map_err(|error| UsageError(format!("--proxy {proxy}: {error}")))?);
            }
        }
        if let Some(config) = self.tls.config()? {
            connector = connector.tls(config);
        }
        let target =
            Target { url, version: self.http, connector, route: self.route(), tls: self.tls.clone() };
        // Finds every invalid option before anything is sent.
        target.request()?;
        Ok(target)
    }

    /// Checks that HTTP/3 can be used with the other options.
    fn check_http3(&self, url: &Uri) -> Result<(), UsageError> {
        let why = if let Some(why) = http3::ABSENCE {
            why
        } else if !matches!(url.scheme_str(), Some("wss" | "https")) {
            "HTTP/3 is always encrypted, so the URL has to begin with wss:// or https://"
        } else if self.unix.is_some() {
            "QUIC does not use Unix sockets (--unix)"
        } else {
            return Ok(());
        };
        Err(UsageError(format!("--http 3: {why}")))
    }

    /// The version of HTTP that the options select.
    pub(crate) fn http_version(&self) -> Version {
        self.http
    }

    /// An option with which this program can't open the transport itself, or offer extensions of its own.
    pub(crate) fn needs_library(&self) -> Option<&'static str> {
        match &self.proxy {
            Some(proxy) if proxy != "none" => Some("--proxy"),
            _ if self.compress => Some("--compress"),
            _ => None,
        }
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, UsageError> {
        let text = match (&self.user, &self.bearer) {
            (Some(user), _) => format!("Basic {}", BASE64_STANDARD.encode(user)),
            (_, Some(token)) => format!("Bearer {}", read_token(token)?),
            (None, None) => return Ok(None),
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| {
            UsageError("the credentials contain characters that a header can't contain".into())
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Returns whether there may be a proxy on the way, by the options or the environment.
    fn may_use_proxy(&self) -> bool {
        match self.proxy.as_deref() {
            Some(proxy) => proxy != "none",
            None => ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].iter().any(|name| {
                [name.to_string(), name.to_lowercase()].iter().any(|name| std::env::var_os(name).is_some())
            }),
        }
    }

    fn route(&self) -> Route {
        let family = match (self.ipv4, self.ipv6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            (false, false) => None,
        };
        match &self.unix {
            Some(path) => Route::Unix(path.clone()),
            None if family.is_some() || !self.resolve.is_empty() => {
                Route::Addresses { resolve: self.resolve.clone(), family }
            }
            None if self.may_use_proxy() => Route::Proxy,
            None => Route::Default,
        }
    }
}

impl Target {
    /// The URL of the server.
    pub(crate) fn url(&self) -> &Uri {
        &self.url
    }

    /// The version of HTTP.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The URL of the server, without credentials.
    pub(crate) fn shown_url(&self) -> String {
        let authority = self.url.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        format!("{}://{host}{path}", self.url.scheme_str().unwrap_or_default())
    }

    /// Changes the connector, for options of a single command.
    pub(crate) fn configure(
        &mut self,
        change: impl FnOnce(Connector) -> Connector,
    ) -> Result<(), UsageError> {
        self.connector = change(std::mem::take(&mut self.connector));
        self.request().map(drop)
    }

    /// Sets a function that sees the control frames of the server.
    pub(crate) fn on_control(&mut self, function: impl Fn(ControlFrame) + Send + Sync + 'static) {
        self.connector = std::mem::take(&mut self.connector).on_control(function);
    }

    /// The request that opens a connection.
    pub(crate) fn request(&self) -> Result<Request<()>, UsageError> {
        let prepared = self.connector.request(&self.url);
        prepared.map(|(request, _)| request).map_err(|error| UsageError(in_options(&error)))
    }

    /// Connects, and performs the opening handshake.
    pub(crate) async fn connect(&self) -> Result<(WebSocket, Response<()>), ConnectError> {
        if self.version == Version::Http3 {
            return self.connect_http3().await;
        }
        match &self.route {
            Route::Default | Route::Proxy => Ok(self.connector.connect(&self.url).await?),
            Route::Addresses { resolve, family } => {
                let stream = self.dial(resolve, *family).await?;
                self.connect_over(stream).await
            }
            Route::Unix(path) => {
                let stream = transport::open_unix(path).await?;
                Ok(self.connector.connect_over(&self.url, stream).await?)
            }
        }
    }

    async fn connect_http3(&self) -> Result<(WebSocket, Response<()>), ConnectError> {
        let addresses = match &self.route {
            Route::Addresses { resolve, family } => Some(self.resolve(resolve, *family).await?),
            Route::Default | Route::Proxy | Route::Unix(_) => None,
        };
        Ok(http3::connect(&self.connector, &self.url, addresses).await?)
    }

    /// Performs the opening handshake over a TCP connection to one of the [`addresses`](Self::addresses).
    pub(crate) async fn connect_over(
        &self,
        stream: TcpStream,
    ) -> Result<(WebSocket, Response<()>), ConnectError> {
        Ok(self.connector.connect_over(&self.url, stream).await?)
    }

    /// Resolves the host. Returns its addresses, or `None` if the way to the server is not by TCP, or is
    /// through a proxy.
    pub(crate) async fn addresses(&self) -> Result<Option<Vec<SocketAddr>>, ConnectError> {
        match &self.route {
            _ if self.version == Version::Http3 => Ok(None),
            Route::Default => self.resolve(&[], None).await.map(Some),
            Route::Addresses { resolve, family } => self.resolve(resolve, *family).await.map(Some),
            Route::Proxy | Route::Unix(_) => Ok(None),
        }
    }

    /// A client that connects again after each loss.
    pub(crate) fn reconnecting(&self) -> Reconnecting {
        let client = self.connector.clone().reconnecting(&self.url);
        match &self.route {
            Route::Default | Route::Proxy => client,
            Route::Addresses { resolve, family } => {
                let (target, resolve, family) = (self.clone(), resolve.clone(), *family);
                client.dial(move || {
                    let (target, resolve) = (target.clone(), resolve.clone());
                    async move { target.dial(&resolve, family).await.map_err(io::Error::other) }
                })
            }
            Route::Unix(path) => {
                let path = path.clone();
                client.dial(move || {
                    let path = path.clone();
                    async move { transport::open_unix(&path).await.map_err(io::Error::other) }
                })
            }
        }
    }

    /// Opens a TCP connection to one of the addresses that `--resolve`, `-4` and `-6` leave.
    async fn dial(&self, resolve: &[Resolve], family: Option<Family>) -> Result<TcpStream, ConnectError> {
        let usable = self.resolve(resolve, family).await?;
        let failed = |error: io::Error| self.unreachable(&error);
        let stream = TcpStream::connect(&usable[..]).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(stream)
    }

    /// Returns the addresses of the host that `--resolve`, `-4` and `-6` leave: at least one.
    async fn resolve(
        &self,
        resolve: &[Resolve],
        family: Option<Family>,
    ) -> Result<Vec<SocketAddr>, ConnectError> {
        let (host, port) = host_and_port(&self.url);
        let fixed = resolve.iter().find(|entry| entry.host.eq_ignore_ascii_case(host) && entry.port == port);
        let addresses: Vec<SocketAddr> = match fixed {
            Some(entry) => vec![SocketAddr::new(entry.address, port)],
            None => match lookup_host((host.trim_matches(['[', ']']), port)).await {
                Ok(addresses) => addresses.collect(),
                Err(error) => return Err(self.unreachable(&error)),
            },
        };
        let usable: Vec<SocketAddr> = addresses
            .into_iter()
            .filter(|address| match family {
                Some(Family::V4) => address.is_ipv4(),
                Some(Family::V6) => address.is_ipv6(),
                None => true,
            })
            .collect();
        if usable.is_empty() {
            return Err(self.unreachable(&"the host has no address of the family that was asked for"));
        }
        Ok(usable)
    }

    fn unreachable(&self, why: &dyn fmt::Display) -> ConnectError {
        let (host, port) = host_and_port(&self.url);
        ConnectError::Dial(format!("connecting to {host}:{port} failed: {why}"))
    }
}

/// The host and port that a URL names.
pub(crate) fn host_and_port(url: &Uri) -> (&str, u16) {
    let secure = matches!(url.scheme_str(), Some("wss" | "https"));
    (url.host().unwrap_or_default(), url.port_u16().unwrap_or(if secure { 443 } else { 80 }))
}

/// Reads a URL, or what users write instead of one: `localhost:8080`, `:8080/feed`, `example.com`.
fn parse_url(text: &str, version: Version) -> Result<Uri, UsageError> {
    let invalid = |why: &dyn fmt::Display| UsageError(format!("{text:?} is no URL: {why}"));
    let scheme = if version == Version::Http3 { "wss" } else { "ws" };
    let whole = match text.find("://") {
        Some(at) if text[..at].bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) => {
            text.to_owned()
        }
        _ if text.starts_with(':') => format!("{scheme}://localhost{text}"),
        _ => format!("{scheme}://{text}"),
    };
    // A fragment has no meaning here (RFC 6455 3), and Uri would drop it in silence.
    if whole.contains('#') {
        return Err(invalid(&"a WebSocket URL has no fragment (#...)"));
    }
    let url: Uri = whole.parse().map_err(|error| invalid(&error))?;
    match url.scheme_str() {
        Some("ws" | "wss" | "http" | "https") => Ok(url),
        scheme => Err(invalid(&format!(
            "its scheme is {}, not ws, wss, http or https",
            scheme.unwrap_or("missing")
        ))),
    }
}

fn read_token(token: &str) -> Result<String, UsageError> {
    match token.strip_prefix('@') {
        None => Ok(token.to_owned()),
        Some(file) => match fs::read_to_string(file) {
            Ok(text) => Ok(text.trim_end().to_owned()),
            Err(error) => Err(UsageError(format!("--bearer {token}: {error}"))),
        },
    }
}
