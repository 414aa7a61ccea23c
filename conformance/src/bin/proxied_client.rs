//! A client behind a proxy: runs the named checks against the server at the given URL.
//!
//! All connections come from 127.0.0.7, an address that the proxy does not use itself. Their requests contain
//! a forged `X-Forwarded-For`.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use bowline::http::Uri;
use bowline::{CloseCode, Connector, ControlFrame, ErrorKind, HttpVersion, WebSocket};
use clap::Parser;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const TIME_LIMIT: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct Arguments {
    /// The proxy, such as `wss://localhost:8443`.
    url: Uri,
    /// The names of the checks.
    checks: Vec<String>,
    /// Speak HTTP/2.
    #[arg(long)]
    http2: bool,
    /// The idle timeout of the proxy, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    idle_timeout: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    for name in &arguments.checks {
        match timeout(TIME_LIMIT, check(&arguments, name)).await {
            Ok(Ok(())) => println!("ok {name}"),
            Ok(Err(error)) => println!("failed {name}: {error}"),
            Err(_) => println!("failed {name}: it took more than {TIME_LIMIT:?}"),
        }
    }
    ExitCode::SUCCESS
}

async fn check(arguments: &Arguments, name: &str) -> Result<(), Box<dyn Error>> {
    let version = if arguments.http2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
    // The server alone keeps the connections alive.
    let connector =
        Connector::new().http_version(version).keepalive(None).header("x-forwarded-for", "203.0.113.66");
    let authority = arguments.url.authority().ok_or("the URL has no host")?;
    match name {
        "echo" => is_echoed(&mut connect(&connector, &arguments.url).await?).await,
        "outlives the idle timeout" => {
            outlives(&connector, &arguments.url, Duration::from_millis(arguments.idle_timeout)).await
        }
        "many" => many(&connector, &arguments.url).await,
        "no WebSockets over HTTP/2" => {
            let error = connect(&connector, &arguments.url).await.err().ok_or("the proxy accepted")?;
            if error.to_string().contains("RFC 8441") { Ok(()) } else { Err(error) }
        }
        "sixth WebSocket fails" => match connect(&connector, &arguments.url).await {
            Ok(_) => Err("the proxy accepted".into()),
            Err(_) => Ok(()),
        },
        "cut" => is_cut(connect(&connector, &arguments.url).await?).await,
        "page of the same origin" => {
            let connector = connector.origin(format!("https://{authority}"));
            is_echoed(&mut connect(&connector, &arguments.url).await?).await
        }
        "page of the same origin refused" => {
            is_refused(&connector.origin(format!("https://{authority}")), &arguments.url, 403).await
        }
        "page of another origin refused" => {
            is_refused(&connector.origin("https://attacker.example"), &arguments.url, 403).await
        }
        "refused with 426" => is_refused(&connector, &arguments.url, 426).await,
        "closed for a restart" => is_closed_for_restart(connect(&connector, &arguments.url).await?).await,
        _ => Err("there is no such check".into()),
    }
}

async fn connect(connector: &Connector, url: &Uri) -> Result<WebSocket, Box<dyn Error>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.7:0".parse()?)?;
    let port = url.port_u16().ok_or("the URL has no port")?;
    let stream = socket.connect(([127, 0, 0, 1], port).into()).await?;
    let (socket, _) = connector.connect_over(url, stream).await?;
    Ok(socket)
}

async fn is_echoed(socket: &mut WebSocket) -> Result<(), Box<dyn Error>> {
    socket.send("hello").await?;
    match socket.recv().await? {
        Some(message) if message == "hello".into() => Ok(()),
        other => Err(format!("received {other:?}").into()),
    }
}

/// Waits for the server's pings for twice the idle timeout.
async fn outlives(connector: &Connector, url: &Uri, idle_timeout: Duration) -> Result<(), Box<dyn Error>> {
    let (sender, mut pings) = mpsc::unbounded_channel();
    let connector = connector.clone().on_control(move |frame| {
        if let ControlFrame::Ping(_) = frame {
            let _ = sender.send(());
        }
    });
    let mut socket = connect(&connector, url).await?;
    let begin = Instant::now();
    while begin.elapsed() < idle_timeout * 2 {
        tokio::select! {
            _ = pings.recv() => {}
            () = socket.closed() => return Err("the connection was cut".into()),
        }
    }
    is_echoed(&mut socket).await?;
    socket.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

async fn is_refused(connector: &Connector, url: &Uri, status: u16) -> Result<(), Box<dyn Error>> {
    let error = connect(connector, url).await.err().ok_or("the server accepted")?;
    let error = error.downcast::<bowline::Error>()?;
    match error.response() {
        Some(response) if response.status() == status => Ok(()),
        _ => Err(format!("refused otherwise: {error}").into()),
    }
}

/// Opens more WebSockets than fit into an HTTP/2 connection.
async fn many(connector: &Connector, url: &Uri) -> Result<(), Box<dyn Error>> {
    let mut sockets = Vec::new();
    for _ in 0..150 {
        sockets.push(connect(connector, url).await?);
    }
    for socket in &mut sockets {
        is_echoed(socket).await?;
    }
    Ok(())
}

/// Waits for the end of a connection, which the proxy causes.
async fn is_cut(mut socket: WebSocket) -> Result<(), Box<dyn Error>> {
    println!("connected");
    let error = socket.recv().await.err().ok_or("the connection ended normally")?;
    match error.kind() {
        ErrorKind::Disconnected => Ok(()),
        _ => Err(format!("ended otherwise: {error}").into()),
    }
}

/// Waits for the end of a connection, which the server causes.
async fn is_closed_for_restart(mut socket: WebSocket) -> Result<(), Box<dyn Error>> {
    is_echoed(&mut socket).await?;
    println!("connected");
    let error = socket.recv().await.err().ok_or("the connection ended normally")?;
    match error.close_frame() {
        Some(frame) if frame.code() == CloseCode::SERVICE_RESTART => Ok(()),
        _ => Err(format!("ended otherwise: {error}").into()),
    }
}
