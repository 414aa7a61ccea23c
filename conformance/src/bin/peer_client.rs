//! The peer client of README.md on bowline: runs the named checks against the server at the given URL.

use std::error::Error;
use std::fmt::Debug;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bowline::{CloseCode, Connector, Http2Connection, HttpVersion, Limits, Message, MessageKind, WebSocket};
use bowline_conformance::{Compression, trusting};
use bowline_http3::Http3Connection;
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const TIME_LIMIT: Duration = Duration::from_secs(10);
const MEBIBYTE: usize = 1 << 20;

#[derive(Parser)]
struct Arguments {
    /// The server, such as `ws://127.0.0.1:8080`.
    url: String,
    /// The names of the checks.
    checks: Vec<String>,
    /// Set if compression is offered.
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
    /// Speak HTTP/2.
    #[arg(long)]
    http2: bool,
    /// Speak HTTP/3, and trust the certificate in this file.
    #[arg(long, value_name = "FILE")]
    http3: Option<PathBuf>,
}

/// The way to open WebSockets.
#[derive(Clone)]
struct Client {
    connector: Connector,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Tcp,
    Http3,
}

impl Client {
    fn with(&self, change: impl FnOnce(Connector) -> Connector) -> Self {
        Self { connector: change(self.connector.clone()), version: self.version }
    }

    /// Opens a connection for many WebSockets.
    async fn open(&self, url: &str) -> Result<Shared, bowline::Error> {
        Ok(match self.version {
            Version::Tcp => Shared::Http2(self.connector.connect_http2(url).await?),
            Version::Http3 => Shared::Http3(Http3Connection::open(&self.connector, url).await?),
        })
    }

    async fn connect(&self, url: &str, path: &str) -> Result<WebSocket, bowline::Error> {
        let (socket, _) = match self.version {
            Version::Tcp => self.connector.connect(format!("{url}{path}")).await?,
            Version::Http3 => Http3Connection::open(&self.connector, url).await?.connect(path).await?,
        };
        Ok(socket)
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let Arguments { url, checks, compression, http2, http3 } = Arguments::parse();
    let version = if http2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
    let mut connector = Connector::new().compression(compression).http_version(version);
    let version = if http3.is_some() { Version::Http3 } else { Version::Tcp };
    if let Some(file) = http3 {
        connector = connector.tls(trusting(&file)?);
    }
    let client = Client { connector, version };
    for name in checks {
        match timeout(TIME_LIMIT, check(&client, compression, &name, &url)).await {
            Ok(Ok(())) => println!("ok {name}"),
            Ok(Err(error)) => println!("failed {name}: {error}"),
            Err(_) => println!("failed {name}: it took more than {TIME_LIMIT:?}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(client: &Client, mode: Compression, name: &str, url: &str) -> Result<(), Box<dyn Error>> {
    match name {
        "text" => is_echoed(client, url, "hello").await,
        "multibyte text" => is_echoed(client, url, "κόσμε 🪢").await,
        "empty message" => is_echoed(client, url, "").await,
        "binary" => is_echoed(client, url, every_byte(256)).await,
        "1 MiB of binary" => is_echoed(client, url, every_byte(MEBIBYTE)).await,
        "1 MiB of text" => is_echoed(client, url, "🪢".repeat(MEBIBYTE / 4)).await,
        "compression" => compression(client, mode, url).await,
        "fragmented" => fragmented(client, url).await,
        "streamed" => streamed(client, url).await,
        "ping from client" => ping_from_client(client, url).await,
        "ping from server" => ping_from_server(client, url).await,
        "subprotocol" => subprotocol(client, url, &["chat.v1", "chat.v2", "chat.v3"], Some("chat.v2")).await,
        "no subprotocol" => subprotocol(client, url, &[], None).await,
        "server closes with 4001" => server_closes_with_an_error(client, url).await,
        "server closes with 1000" => server_closes_normally(client, url).await,
        "client closes with 4002" => client_closes(client, url, CloseCode(4002), "error 4002 leaving").await,
        "client closes with 1000" => {
            client_closes(client, url, CloseCode::NORMAL, "normal 1000 leaving").await
        }
        "client closes its stream" => client_closes_its_stream(client, url).await,
        "client drops" => client_drops(client, url).await,
        "server resets" => server_resets(client, url).await,
        "refused" => refused(client, url).await,
        "many" => many(client, url).await,
        _ => Err("there is no such check".into()),
    }
}

fn every_byte(size: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().take(size).collect()
}

/// Returns an error with both values, shortened, if they differ.
fn expect<T: Debug + PartialEq + ?Sized>(observed: &T, expected: &T) -> Result<(), Box<dyn Error>> {
    if observed == expected {
        return Ok(());
    }
    Err(format!("expected {:.100}, observed {:.100}", format!("{expected:?}"), format!("{observed:?}"))
        .into())
}

async fn is_echoed(client: &Client, url: &str, message: impl Into<Message>) -> Result<(), Box<dyn Error>> {
    let message = message.into();
    let mut socket = client.connect(url, "/echo").await?;
    socket.send(message.clone()).await?;
    expect(&socket.recv().await?, &Some(message))?;
    close(&socket).await
}

/// Sends messages that each resemble the previous one.
async fn compression(client: &Client, mode: Compression, url: &str) -> Result<(), Box<dyn Error>> {
    let mut socket = client.connect(url, "/echo").await?;
    let agreed = socket.compression().ok_or("it was not agreed on")?;
    let no_takeover = [agreed.server_no_context_takeover, agreed.client_no_context_takeover];
    expect(&no_takeover, &[mode == Compression::NoTakeover; 2])?;
    for i in 0..20 {
        let message = Message::from(format!("{{\"number\":{i},\"text\":\"κόσμε\"}}").repeat(1 + i * 10));
        socket.send(message.clone()).await?;
        expect(&socket.recv().await?, &Some(message))?;
    }
    close(&socket).await
}

async fn close(socket: &WebSocket) -> Result<(), Box<dyn Error>> {
    let answer = socket.close(CloseCode::NORMAL, "").await?;
    expect(&answer.code(), &CloseCode::NORMAL)
}

/// Sends fragments that end within code points, and reads the answer piecemeal.
async fn fragmented(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let text = "one, δύο, three";
    let mut socket = client.connect(url, "/fragments").await?;
    let mut writer = socket.writer(MessageKind::Text).await?;
    for fragment in text.as_bytes().chunks(6) {
        writer.write_all(fragment).await?;
        writer.flush().await?;
    }
    writer.finish().await?;

    let mut reader = socket.reader().await?.ok_or("the connection ended")?;
    expect(&reader.kind(), &MessageKind::Text)?;
    let mut answer = String::new();
    reader.read_to_string(&mut answer).await?;
    expect(answer.as_str(), text)?;
    drop(reader);
    close(&socket).await
}

/// Checks that each fragment is returned before the next one is sent.
async fn streamed(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let mut socket = client.connect(url, "/fragments").await?;
    let mut writer = socket.writer(MessageKind::Binary).await?;
    writer.write_all(b"one, ").await?;
    writer.flush().await?;

    let mut reader = socket.reader().await?.ok_or("the connection ended")?;
    expect(&reader.kind(), &MessageKind::Binary)?;
    let mut answer = [0; 5];
    reader.read_exact(&mut answer).await?;
    expect(&answer, b"one, ")?;

    writer.write_all(b"two, ").await?;
    writer.flush().await?;
    reader.read_exact(&mut answer).await?;
    expect(&answer, b"two, ")?;

    writer.finish().await?;
    expect(&reader.read(&mut answer).await?, &0)?;
    drop(reader);
    close(&socket).await
}

async fn ping_from_client(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let socket = client.connect(url, "/echo").await?;
    socket.ping().await?;
    close(&socket).await
}

async fn ping_from_server(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let mut socket = client.connect(url, "/ping").await?;
    expect(&socket.recv().await?, &Some("pong".into()))
}

async fn subprotocol(
    client: &Client,
    url: &str,
    offers: &[&str],
    expected: Option<&str>,
) -> Result<(), Box<dyn Error>> {
    let client = client.with(|connector| connector.subprotocols(offers.iter().copied()));
    let socket = client.connect(url, "/echo").await?;
    expect(&socket.subprotocol(), &expected)?;
    close(&socket).await
}

async fn server_closes_with_an_error(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let mut socket = client.connect(url, "/close/4001").await?;
    let error = socket.recv().await.err().ok_or("recv gave no error")?;
    let frame = error.close_frame().ok_or_else(|| format!("the error has no Close frame: {error}"))?;
    expect(&(frame.code().0, frame.reason()), &(4001, "enough"))
}

async fn server_closes_normally(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let mut socket = client.connect(url, "/close/1000").await?;
    expect(&socket.recv().await?, &None)?;
    let frame = socket.close_frame().ok_or("there was no Close frame")?;
    expect(&(frame.code().0, frame.reason()), &(1000, "enough"))
}

/// Checks that the server answers a Close frame, and reports the close to another connection.
async fn client_closes(
    client: &Client,
    url: &str,
    code: CloseCode,
    outcome: &str,
) -> Result<(), Box<dyn Error>> {
    let socket = client.connect(url, "/record").await?;
    let answer = socket.close(code, "leaving").await?;
    expect(&answer.code(), &code)?;
    let mut asking = client.connect(url, "/outcome").await?;
    expect(&asking.recv().await?, &Some(outcome.into()))
}

/// Checks that the stream ends with `END_STREAM`, without a reset.
async fn client_closes_its_stream(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let socket = client.connect(url, "/record").await?;
    close(&socket).await?;
    let mut asking = client.connect(url, "/ending").await?;
    expect(&asking.recv().await?, &Some("END_STREAM".into()))
}

/// Checks that the reset comes later, or it might overtake earlier bytes.
async fn client_drops(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let limits = Limits::default().close_timeout(Duration::from_millis(100));
    let connection = client.with(|connector| connector.limits(limits)).open(url).await?;
    drop(connection.connect("/record").await?);
    let mut asking = connection.connect("/ending").await?;
    let expected = match client.version {
        Version::Tcp => "END_STREAM, then RST_STREAM CANCEL",
        Version::Http3 => "END_STREAM, then STOP_SENDING H3_NO_ERROR",
    };
    expect(&asking.recv().await?, &Some(expected.into()))
}

async fn server_resets(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let mut socket = client.connect(url, "/reset").await?;
    socket.send("now").await?;
    let error = socket.recv().await.err().ok_or("recv gave no error")?;
    let text = format!("{error}: {}", error.source().ok_or("the error has no source")?);
    let is_told = text.contains("without a Close frame") && text.contains("CANCEL");
    if is_told { Ok(()) } else { Err(text.into()) }
}

async fn refused(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let error = client.connect(url, "/refused").await.err().ok_or("it was accepted")?;
    let response = error.response().ok_or("the error has no response")?;
    expect(&(response.status().as_u16(), response.body().as_ref()), &(403, b"not you".as_slice()))
}

/// Opens more WebSockets over one connection than the server allows at once.
async fn many(client: &Client, url: &str) -> Result<(), Box<dyn Error>> {
    let connection = client.open(url).await?;
    let tasks: Vec<_> = (0..150)
        .map(|number| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let mut socket = connection.connect("/echo").await?;
                let message = Message::from(number.to_string());
                socket.send(message.clone()).await?;
                let answer = socket.recv().await?;
                socket.close(CloseCode::NORMAL, "").await?;
                Ok::<_, bowline::Error>(answer == Some(message))
            })
        })
        .collect();
    for task in tasks {
        expect(&task.await??, &true)?;
    }
    Ok(())
}

/// A connection for many WebSockets.
#[derive(Clone)]
enum Shared {
    Http2(Http2Connection),
    Http3(Http3Connection),
}

impl Shared {
    async fn connect(&self, path: &str) -> Result<WebSocket, bowline::Error> {
        let (socket, _) = match self {
            Self::Http2(connection) => connection.connect(path).await?,
            Self::Http3(connection) => connection.connect(path).await?,
        };
        Ok(socket)
    }
}
