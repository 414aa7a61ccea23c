//! Peers that speak QUIC by quinn, and of HTTP/3 only what a test writes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bowline::Error;
use bowline_http3::Http3Connection;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, ServerConfig,
    TransportConfig,
};
use tokio::time::timeout;

use crate::support::{Running, Tls};

/// Settings of a client: none.
pub(crate) const CLIENT_SETTINGS: &[u8] = &[0x00, 0x04, 0x00];

/// Settings of a server: `SETTINGS_ENABLE_CONNECT_PROTOCOL` is 1.
pub(crate) const SERVER_SETTINGS: &[u8] = &[0x00, 0x04, 0x02, 0x08, 0x01];

/// Returns a frame.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap() | 0x4000;
    [&[kind], &len.to_be_bytes()[..], payload].concat()
}

/// Returns a literal field line with a literal name.
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let prefix = |flags: u8, mask: u8, len: usize| match u8::try_from(len).unwrap() {
        len if len < mask => vec![flags | len],
        len => vec![flags | mask, len - mask],
    };
    [prefix(0x20, 0x07, name.len()), name.into(), prefix(0, 0x7f, value.len()), value.into()].concat()
}

/// Returns the field section of an extended CONNECT for `/` on `a`, and of these further lines.
pub(crate) fn section(more: &[u8]) -> Vec<u8> {
    // :method CONNECT, :scheme https, :path /, :authority a.
    let pseudo = [0x00, 0x00, 0xcf, 0xd7, 0xc1, 0x50, 0x01, b'a'];
    let (protocol, version) = (literal(":protocol", "websocket"), literal("sec-websocket-version", "13"));
    [&pseudo[..], &protocol, &version, more].concat()
}

/// Returns the HEADERS frame of an extended CONNECT.
pub(crate) fn request() -> Vec<u8> {
    frame(0x01, &section(&[]))
}

/// The HEADERS frame of a response with the status 200.
pub(crate) const ACCEPTED: &[u8] = &[0x01, 0x03, 0x00, 0x00, 0xd9];

/// The time for all that has to happen soon.
const SOON: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(SOON, work).await.expect("it took too long")
}

/// A client without HTTP/3.
pub(crate) struct RawClient {
    pub(crate) quic: Connection,
    _endpoint: Endpoint,
    /// Streams that have to stay open.
    kept: Vec<SendStream>,
}

impl RawClient {
    pub(crate) async fn connect(running: &Running) -> Self {
        Self::connect_with(running, TransportConfig::default()).await
    }

    pub(crate) async fn connect_with(running: &Running, transport: TransportConfig) -> Self {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let mut config = client_config(&running.tls);
        config.transport_config(Arc::new(transport));
        let quic = endpoint.connect_with(config, running.address, "localhost").unwrap().await.unwrap();
        Self { quic, _endpoint: endpoint, kept: Vec::new() }
    }

    /// Begins to connect to an address where nobody answers.
    pub(crate) fn start(tls: &Tls, address: SocketAddr) -> (Endpoint, quinn::Connecting) {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let connecting = endpoint.connect_with(client_config(tls), address, "localhost").unwrap();
        (endpoint, connecting)
    }

    /// Opens a unidirectional stream with these bytes, and keeps it open.
    pub(crate) async fn uni(&mut self, bytes: &[u8]) {
        let mut stream = self.quic.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        self.kept.push(stream);
    }

    /// Opens a request stream with these bytes.
    pub(crate) async fn request(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, receive) = self.quic.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        (send, receive)
    }

    /// Returns the code with which the server closes the connection.
    pub(crate) async fn code(&self) -> u64 {
        match soon(self.quic.closed()).await {
            ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("the connection ended otherwise: {other}"),
        }
    }
}

fn client_config(tls: &Tls) -> ClientConfig {
    let mut tls = (*tls.client).clone();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// A server without HTTP/3.
pub(crate) struct RawServer {
    endpoint: Endpoint,
    tls: Tls,
}

impl RawServer {
    pub(crate) fn new() -> Self {
        Self::with_transport(TransportConfig::default())
    }

    /// Creates a server that allows so many requests at a time.
    pub(crate) fn with_requests(count: u32) -> Self {
        let mut transport = TransportConfig::default();
        transport.max_concurrent_bidi_streams(count.into());
        Self::with_transport(transport)
    }

    pub(crate) fn with_transport(transport: TransportConfig) -> Self {
        let tls = Tls::new();
        let mut config = (*tls.server).clone();
        config.alpn_protocols = vec![b"h3".to_vec()];
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { endpoint, tls }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// Returns the connector for this server.
    pub(crate) fn connector(&self) -> bowline::Connector {
        self.tls.connector()
    }

    /// Accepts a connection, and opens unidirectional streams with these bytes.
    pub(crate) async fn accept(&self, unis: &[&[u8]]) -> (Connection, Vec<SendStream>) {
        let quic = self.endpoint.accept().await.unwrap().await.unwrap();
        let mut kept = Vec::new();
        for bytes in unis {
            let mut stream = quic.open_uni().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            kept.push(stream);
        }
        (quic, kept)
    }

    /// Lets a client of ours connect, and answers its request with these bytes. Returns the client's result.
    pub(crate) async fn answer(
        &self,
        connector: &bowline::Connector,
        bytes: &[u8],
    ) -> (Result<bowline::WebSocket, Error>, Http3Connection) {
        let url = format!("wss://{}/", self.address());
        let serving = async {
            let (quic, kept) = self.accept(&[SERVER_SETTINGS]).await;
            let (mut send, receive) = quic.accept_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            (quic, kept, send, receive)
        };
        let connecting = async {
            let connection = Http3Connection::open(connector, url).await.unwrap();
            let opened = connection.connect("/").await.map(|(socket, _)| socket);
            (opened, connection)
        };
        let ((quic, kept, send, receive), answered) = soon(async { tokio::join!(serving, connecting) }).await;
        // They stay open as long as the client looks at its socket.
        tokio::spawn(async move {
            quic.closed().await;
            drop((kept, send, receive));
        });
        answered
    }
}
