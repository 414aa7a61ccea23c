//! Handshakes by hand, and servers to try them on.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bowline::{Handler, Server, WebSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The key of RFC 6455 1.3, and its answer.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The result of a handler.
pub type HandlerResult = Result<(), Box<dyn Error + Send + Sync>>;

/// Sends back each received message.
pub async fn echo(mut socket: WebSocket) -> HandlerResult {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// Starts a server on a free port, for as long as the test runs.
pub async fn start<H: Handler<M>, M: Send + 'static>(server: Server, handler: H) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(server.serve(listener, handler));
    address
}

/// Listens on a free port, and returns its address.
pub async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Fails a test that would hang.
pub async fn soon<F: IntoFuture>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.expect("the test hangs")
}

/// The head of a request or a response, line by line.
#[derive(Clone, Debug)]
pub struct Head(Vec<String>);

impl Head {
    /// Returns a request that every server accepts.
    pub fn request() -> Self {
        Self::from([
            "GET /chat HTTP/1.1",
            "Host: example.com",
            "Upgrade: websocket",
            "Connection: Upgrade",
            &format!("Sec-WebSocket-Key: {KEY}"),
            "Sec-WebSocket-Version: 13",
        ])
    }

    pub fn from<const N: usize>(lines: [&str; N]) -> Self {
        Self(lines.map(str::to_owned).to_vec())
    }

    /// Reads the text of a head.
    pub fn parse(text: &str) -> Self {
        Self(text.trim_end().split("\r\n").map(str::to_owned).collect())
    }

    pub fn first_line(mut self, line: &str) -> Self {
        line.clone_into(&mut self.0[0]);
        self
    }

    /// Adds a line.
    pub fn with(mut self, line: &str) -> Self {
        self.0.push(line.to_owned());
        self
    }

    /// Removes all lines of a header.
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|line| split(line).is_none_or(|(other, _)| !other.eq_ignore_ascii_case(name)));
        self
    }

    /// Replaces all lines of the header by one.
    pub fn replace(self, line: &str) -> Self {
        let (name, _) = split(line).expect("a header");
        self.without(name).with(line)
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0[1..].iter().map(|line| split(line).expect("a header"))
    }

    /// Returns the values of a header, joined by commas.
    pub fn get(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Returns the second word of the first line: the status, or the target.
    pub fn second_word(&self) -> &str {
        self.0[0].split(' ').nth(1).expect("three words")
    }

    pub fn status(&self) -> u16 {
        self.second_word().parse().expect("a status")
    }

    pub fn text(&self) -> String {
        self.0.join("\r\n") + "\r\n\r\n"
    }

    pub fn to_request(&self) -> http::Request<()> {
        let mut words = self.0[0].split(' ');
        let mut request = http::Request::builder().method(words.next().unwrap()).uri(words.next().unwrap());
        if words.next() == Some("HTTP/1.0") {
            request = request.version(http::Version::HTTP_10);
        }
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        request.body(()).unwrap()
    }
}

fn split(line: &str) -> Option<(&str, &str)> {
    line.split_once(':').map(|(name, value)| (name, value.trim()))
}

/// Reads a head, and no byte more.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Head {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(soon(stream.read_u8()).await.expect("a whole head"));
    }
    Head::parse(std::str::from_utf8(&text).expect("a head is text"))
}

/// Sends a request, and reads the answer until the server ends the stream.
pub async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &Head) -> (Head, String) {
    stream.write_all(request.text().as_bytes()).await.unwrap();
    let head = read_head(stream).await;
    let mut body = String::new();
    soon(stream.read_to_string(&mut body)).await.expect("a whole body");
    (head, body)
}

/// Connects, performs a handshake by hand, and returns the stream after it.
pub async fn upgrade(address: SocketAddr, request: &Head) -> (TcpStream, Head) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.text().as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert_eq!(head.status(), 101, "{head:?}");
    (stream, head)
}

/// Returns the response that accepts a request.
pub fn acceptance(request: &Head) -> Head {
    let key = request.get("sec-websocket-key").expect("a key");
    let accept = bowline_proto::handshake::Key::parse(key.as_bytes()).expect("a valid key").accept();
    Head::from([
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        &format!("Sec-WebSocket-Accept: {}", accept.as_str()),
    ])
}

/// Answers a CONNECT, sends its head to `heads`, and relays all bytes to `target`.
pub async fn tunnel<S>(mut stream: S, target: SocketAddr, heads: mpsc::UnboundedSender<Head>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let head = read_head(&mut stream).await;
    heads.send(head).unwrap();
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    let mut target = TcpStream::connect(target).await.unwrap();
    // The end of the test is an error for one of them.
    let _ = copy_bidirectional(&mut stream, &mut target).await;
}

/// Starts an HTTP proxy that connects to `target`, whatever the request.
pub async fn http_proxy(target: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<Head>) {
    let (sender, heads) = mpsc::unbounded_channel();
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(tunnel(stream, target, sender.clone()));
        }
    });
    (address, heads)
}
