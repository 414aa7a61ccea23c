//! The program, and servers for it.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use bowline::http::header::{HeaderValue, WWW_AUTHENTICATE};
use bowline::http::request::Parts;
use bowline::http::{Response, StatusCode};
use bowline::{CloseCode, WebSocket};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A program that takes longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The end of the program.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Asserts on the status and on stdout.
    #[track_caller]
    pub(crate) fn expect(self, status: i32, stdout: &str) -> Self {
        assert_eq!((self.status, self.text()), (status, stdout), "{}", self.stderr);
        self
    }
}

/// A command line of the program, with pipes.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.args(arguments).kill_on_drop(true);
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program with this stdin.
pub(crate) async fn run(arguments: &[&str], stdin: &[u8]) -> Outcome {
    let mut child = command(arguments).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    let writer = tokio::spawn(async move {
        // A program that has ended reads no more.
        let _ = pipe.write_all(&stdin).await;
    });
    let outcome = finish(child).await;
    writer.abort();
    outcome
}

/// Reads the first line that the program writes.
pub(crate) async fn first_line(child: &mut Child) -> String {
    next_line(&mut BufReader::new(child.stdout.as_mut().unwrap())).await
}

/// Reads the next line that the program writes.
pub(crate) async fn next_line(stdout: &mut (impl AsyncBufRead + Unpin)) -> String {
    let mut line = String::new();
    timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("the program writes nothing").unwrap();
    line
}

/// Waits for the end of the program.
pub(crate) async fn finish(child: Child) -> Outcome {
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("the program hangs").unwrap();
    let Output { status, stdout, stderr } = output;
    let status = status.code().expect("the program was killed");
    Outcome { status, stdout, stderr: String::from_utf8(stderr).unwrap() }
}

/// Starts a server, and returns its address. The path of the request says what the server does:
///
/// - `/echo`: send every message back
/// - `/echo/COUNT`: send as many messages back, then close
/// - `/echo-and-fail`: send one message back, then close with 1011
/// - `/flood`: send messages without end
/// - `/greet`: send `hello`, and wait for the end
/// - `/close/CODE/REASON`: close after the first message, or at once with `/close-now`
/// - `/head`: send the headers of the request, a line each
/// - `/refuse`: refuse the request
/// - `/hostile`: send text and a close reason with control characters
pub(crate) async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = bowline::Server::new().http2().acceptor(acceptor()).on_request(|head: Parts| async move {
        if head.uri.path() != "/refuse" {
            return Ok(head);
        }
        let refusal = Response::builder().status(StatusCode::UNAUTHORIZED);
        let refusal = refusal.header(WWW_AUTHENTICATE, "Basic realm=\"x\"").body("no entry".to_owned());
        Err(bowline::Rejection::from(refusal.unwrap()))
    });
    tokio::spawn(server.serve(listener, answer));
    address
}

/// Starts a server that sends `hello` to one client, and reads nothing after the handshake: neither pings nor
/// Close frames are answered.
pub(crate) async fn deaf_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let (mut from_client, mut to_client) = stream.into_split();
        let (mut from_server, mut to_server) = tokio::io::split(far);
        let upstream = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let (socket, _) = bowline::Acceptor::new().accept_stream(near).await.unwrap();
        upstream.abort();
        socket.send("hello").await.unwrap();
        std::future::pending::<()>().await;
    });
    address
}

/// An acceptor without limits that matter here.
pub(crate) fn acceptor() -> bowline::Acceptor {
    bowline::Acceptor::new()
        .compression(bowline::Compression::ContextTakeover)
        .subprotocols(["two"])
        .limits(bowline::Limits::default().message_size(1 << 30))
}

/// The handler of [`serve`].
pub(crate) async fn answer(
    head: Parts,
    mut socket: WebSocket,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let parts: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    match parts[..] {
        ["echo"] => echo(&mut socket, u64::MAX).await?,
        ["echo", count] => echo(&mut socket, count.parse()?).await?,
        ["echo-and-fail"] => {
            echo(&mut socket, 1).await?;
            return Err("failed".into());
        }
        ["flood"] => loop {
            socket.send("flood ".repeat(100)).await?;
        },
        ["greet"] => {
            socket.send("hello").await?;
            while socket.recv().await?.is_some() {}
        }
        ["close", code, reason] => {
            socket.recv().await?;
            socket.close(CloseCode(code.parse()?), reason).await?;
        }
        ["close-now", code, reason] => {
            socket.close(CloseCode(code.parse()?), reason).await?;
        }
        ["head"] => {
            let line = |(name, value): (_, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
            let lines: Vec<String> = head.headers.iter().map(line).collect();
            socket.send(lines.join("\n")).await?;
        }
        ["hostile"] => {
            socket.send("\u{1b}[2J\u{202e}text").await?;
            socket.close(CloseCode(4000), "\u{1b}[31mreason").await?;
        }
        _ => return Err(format!("no such path: {}", head.uri.path()).into()),
    }
    Ok(())
}

async fn echo(socket: &mut WebSocket, count: u64) -> Result<(), bowline::Error> {
    for _ in 0..count {
        match socket.recv().await? {
            Some(message) => socket.send(message).await?,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// The URL of a path of [`serve`].
pub(crate) fn url(address: SocketAddr, path: &str) -> String {
    format!("ws://{address}{path}")
}

/// Sends a signal to a process.
#[cfg(unix)]
pub(crate) async fn kill(process: u32, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &process.to_string()]).status().await.unwrap();
    assert!(status.success());
}
