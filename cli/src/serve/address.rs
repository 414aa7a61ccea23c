//! Addresses to listen on.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::net::{TcpListener, UdpSocket};

/// An address to listen on: `127.0.0.1:8080`, `localhost:8080`, `:8080`, `8080` or `unix:/run/x.sock`.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// All addresses of the machine.
    Port(u16),
    Host(String),
    Unix(PathBuf),
}

/// The ports of TCP that are tried until one is free for UDP, too.
const UDP_ATTEMPTS: usize = 16;

/// A bound listener.
pub(crate) enum Bound {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, which is removed at the end.
#[cfg(unix)]
pub(crate) struct SocketFile(PathBuf);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
        match text.rsplit_once(':') {
            None => Ok(Self::Port(port(text)?)),
            Some(("", number)) => Ok(Self::Port(port(number)?)),
            Some((_, number)) => port(number).map(|_| Self::Host(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, ":{port}"),
            Self::Host(host) => f.write_str(host),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Binds the address, and UDP on the same port, for HTTP/3.
    pub(crate) async fn bind_with_udp(&self) -> io::Result<(Bound, UdpSocket)> {
        for _ in 0..UDP_ATTEMPTS {
            let bound = self.bind().await?;
            match bound.bind_udp().await {
                Ok(socket) => return Ok((bound, socket)),
                Err(error) if self.port_is_fixed() || error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(error);
                }
                // The system chooses another port.
                Err(_) => {}
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Returns `true` if there is a port for UDP.
    pub(crate) fn has_port(&self) -> bool {
        !matches!(self, Self::Unix(_))
    }

    fn port_is_fixed(&self) -> bool {
        match self {
            Self::Port(port) => *port != 0,
            Self::Host(host) => !host.ends_with(":0"),
            Self::Unix(_) => true,
        }
    }

    /// Binds the address.
    pub(crate) async fn bind(&self) -> io::Result<Bound> {
        match self {
            // Where IPv6 is switched off, IPv4 is all there is.
            Self::Port(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).await {
                Ok(listener) => Ok(Bound::Tcp(listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
                Err(_) => TcpListener::bind(("0.0.0.0", *port)).await.map(Bound::Tcp),
            },
            Self::Host(host) => TcpListener::bind(host).await.map(Bound::Tcp),
            Self::Unix(path) => Self::bind_unix(path),
        }
    }

    #[cfg(unix)]
    fn bind_unix(path: &std::path::Path) -> io::Result<Bound> {
        remove_stale(path);
        Ok(Bound::Unix(UnixListener::bind(path)?, SocketFile(path.to_owned())))
    }

    #[cfg(not(unix))]
    fn bind_unix(_: &std::path::Path) -> io::Result<Bound> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
    }
}

/// Removes the socket of a server that is gone, and nothing else.
#[cfg(unix)]
fn remove_stale(path: &std::path::Path) {
    use std::os::unix::fs::FileTypeExt as _;

    let is_socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Bound {
    /// The URL that clients on this machine use.
    pub(crate) fn url(&self, secure: bool) -> io::Result<String> {
        let scheme = if secure { "wss" } else { "ws" };
        match self {
            Self::Tcp(listener) => {
                let address = listener.local_addr()?;
                if address.ip().is_unspecified() {
                    return Ok(format!("{scheme}://localhost:{}", address.port()));
                }
                Ok(format!("{scheme}://{address}"))
            }
            #[cfg(unix)]
            Self::Unix(_, file) => Ok(format!("{scheme}://localhost --unix {}", file.0.display())),
        }
    }

    /// Binds UDP on the same address and port, for HTTP/3.
    pub(crate) async fn bind_udp(&self) -> io::Result<UdpSocket> {
        match self.tcp_address() {
            Some(address) => UdpSocket::bind(address).await,
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "HTTP/3 needs a port")),
        }
    }

    /// The address, if the server is reached by TCP.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Self::Unix(..) => None,
        }
    }
}
