//! The transports of the load: TCP, or TLS over TCP. They are opened with blocking calls, and used without.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::handshake;

/// A non-blocking connection.
pub trait Wire: Read + Write {
    /// Returns the socket that mio watches.
    fn socket(&mut self) -> &mut mio::net::TcpStream;

    /// Reads. A read that doesn't fill the buffer has emptied the socket.
    const SHORT_READ_EMPTIES: bool;
}

impl Wire for mio::net::TcpStream {
    fn socket(&mut self) -> &mut mio::net::TcpStream {
        self
    }

    const SHORT_READ_EMPTIES: bool = true;
}

/// Opens a connection and performs the opening handshake.
///
/// Dropping the connection resets it, so that thousands of connections leave no state behind for the next
/// measurement.
pub fn open(address: SocketAddr, compress: bool) -> Result<TcpStream> {
    let mut stream = connect(address)?;
    shake_hands(&mut stream, if compress { handshake::REQUEST_TO_COMPRESS } else { handshake::REQUEST })?;
    Ok(stream)
}

pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}

/// A blocking connection that becomes a non-blocking one.
pub trait Blocking: Read + Write {
    type Wire: Wire;

    fn into_wire(self) -> io::Result<Self::Wire>;
}

impl Blocking for TcpStream {
    type Wire = mio::net::TcpStream;

    fn into_wire(self) -> io::Result<Self::Wire> {
        self.set_nonblocking(true)?;
        Ok(mio::net::TcpStream::from_std(self))
    }
}

impl Blocking for BlockingTls {
    type Wire = Tls;

    fn into_wire(self) -> io::Result<Self::Wire> {
        let (session, stream) = self.into_parts();
        Ok(Tls { socket: stream.into_wire()?, session })
    }
}

/// Opens a connection for use with mio.
pub fn open_plain(address: SocketAddr, compress: bool) -> Result<mio::net::TcpStream> {
    Ok(open(address, compress)?.into_wire()?)
}

/// Accepts a connection and performs the opening handshake, for use with mio.
pub fn accept_plain(listener: &TcpListener) -> Result<mio::net::TcpStream> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while handshake::head_end(&head).is_none() {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "the client ended the handshake");
        head.extend_from_slice(&piece[..count]);
    }
    stream.write_all(handshake::accept(&head, None).as_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(stream))
}

fn shake_hands(stream: &mut (impl Read + Write), request: &[u8]) -> Result<()> {
    stream.write_all(request)?;
    let mut response = Vec::new();
    let mut piece = [0; 1024];
    while !response.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "the server ended the handshake");
        response.extend_from_slice(&piece[..count]);
    }
    let text = String::from_utf8_lossy(&response);
    ensure!(text.starts_with("HTTP/1.1 101 "), "the handshake failed: {text}");
    ensure!(text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the accept value is wrong: {text}");
    Ok(())
}

/// TLS over TCP, with blocking calls.
pub type BlockingTls = rustls::StreamOwned<ClientConnection, TcpStream>;

/// TLS over TCP.
pub struct Tls {
    socket: mio::net::TcpStream,
    session: ClientConnection,
}

/// Opens a connection with TLS, and performs the opening handshake.
pub fn open_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Tls> {
    Ok(open_blocking_tls(address, config)?.into_wire()?)
}

/// Opens a connection with TLS for use with blocking calls.
pub fn open_blocking_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<BlockingTls> {
    let mut stream = connect_tls(address, config)?;
    shake_hands(&mut stream, handshake::REQUEST)?;
    Ok(stream)
}

/// Connects with TLS, which the first read or write completes.
pub fn connect_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<BlockingTls> {
    let session = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
    Ok(BlockingTls::new(session, connect(address)?))
}

/// Returns a configuration that trusts every certificate, since the servers under test sign their own.
pub fn trusting_config() -> Result<Arc<ClientConfig>> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Returns such a configuration, which offers a protocol (ALPN).
pub fn trusting_config_for(protocol: &[u8]) -> Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::clone(&*trusting_config()?);
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl Tls {
    /// Writes encrypted bytes of the session, as far as the socket accepts them.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            if self.session.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            self.session.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let count = self.session.writer().write(bytes)?;
        self.push()?;
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl Wire for Tls {
    fn socket(&mut self) -> &mut mio::net::TcpStream {
        &mut self.socket
    }

    const SHORT_READ_EMPTIES: bool = false;
}
