//! `bowline serve`: a server.
//!
//! A [`Mode`] is the work that the server does for a connection. `run` binds the address, prints its URL, and
//! serves until a signal arrives; connections are then closed with 1001.

mod address;
mod alt_svc;
mod broadcast;
mod certificate;
mod demo;
mod exec;
mod files;
mod gateway;
mod guard;
mod log;
mod mode;
mod pump;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bowline::{
    Acceptor, CloseCode, Compression, Connector, Limits, Server, ShutdownOptions, ShutdownSummary,
};
use clap::Args;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use self::address::{Address, Bound};
use self::alt_svc::AltSvc;
use self::certificate::CertificateArguments;
use self::gateway::Upstream;
use self::guard::HostGuard;
use self::log::{Log, LogArguments};
use self::mode::{Mode, ModeArguments};
use crate::connect::{Size, UsageError};
use crate::exit::{Exit, Signals};
use crate::http3;

/// The time in which connections are closed after a signal. The programs of `--exec` end within it.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(6);

const EXAMPLES: &str = "\
Examples:
  bowline serve                             echo on ws://127.0.0.1:8080
  bowline serve :9000 --broadcast           each message goes to all clients; on all addresses
  bowline serve --files site --broadcast    a page and its WebSockets on one port
  bowline serve --http3 --files site        the same port by TCP and by UDP (QUIC)
  bowline serve --to tcp:localhost:5432     a gateway to a TCP server
  bowline serve --exec grep --line-buffered x    a program for each connection";

/// The options of `bowline serve`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArguments {
    /// Address to listen on: [HOST]:PORT, PORT or unix:PATH. Without a host, all addresses; port 0 selects a
    /// free one
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:8080")]
    address: Address,
    #[command(flatten)]
    mode: ModeArguments,
    /// Answer other requests with the files of this folder
    #[arg(long, value_name = "DIR", help_heading = "Server")]
    files: Option<PathBuf>,
    /// Allow pages of another origin, such as https://*.example.com, localhost:3000 or *; may be repeated
    #[arg(long, value_name = "PATTERN", help_heading = "Server")]
    allow_origin: Vec<String>,
    /// Support a subprotocol; may be repeated, the preferred one first
    #[arg(short, long, value_name = "NAME", help_heading = "Server")]
    subprotocol: Vec<String>,
    /// Accept compression (permessage-deflate)
    #[arg(short = 'z', long, help_heading = "Server")]
    compress: bool,
    /// Serve HTTP/2, too
    #[arg(long, help_heading = "Server")]
    http2: bool,
    /// Serve HTTP/3, too, by UDP on the same port, with the same certificate. Implies --tls. Answers have the
    /// header Alt-Svc
    #[arg(long, help_heading = "Server")]
    http3: bool,
    /// The largest message, in bytes, or with K, M or G
    #[arg(long, value_name = "SIZE", default_value = "64M", help_heading = "Server")]
    max_size: Size,
    #[command(flatten)]
    certificate: CertificateArguments,
    #[command(flatten)]
    log: LogArguments,
}

/// Runs `bowline serve`.
pub(crate) fn run(mut arguments: ServeArguments) -> Exit {
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, Exit::Failure),
    };
    if arguments.mode.demo {
        return runtime.block_on(demo::run());
    }
    if arguments.http3 {
        // HTTP/3 is always encrypted.
        arguments.certificate.require();
    }
    let exit = {
        let _context = runtime.enter();
        match prepare(&arguments) {
            Ok(prepared) => runtime.block_on(serve(prepared, arguments)),
            Err(error) => failed(&error, Exit::Usage),
        }
    };
    // This drops what still runs, and with it the programs of `--exec`.
    runtime.shutdown_timeout(Duration::from_millis(200));
    log::finish();
    exit
}

fn failed(error: &dyn std::fmt::Display, exit: Exit) -> Exit {
    let _ = writeln!(anstream::stderr(), "bowline: {error}");
    exit
}

/// A server whose address is not bound yet.
struct Prepared {
    server: Server,
    guard: HostGuard,
    alt_svc: AltSvc,
}

/// Checks the options, and returns the server that they describe.
///
/// Must be called within a runtime.
fn prepare(arguments: &ServeArguments) -> Result<Prepared, UsageError> {
    let (guard, alt_svc) = (HostGuard::new(&arguments.allow_origin), AltSvc::default());
    if arguments.http3 {
        if let Some(why) = http3::ABSENCE {
            return Err(UsageError(format!("--http3: {why}")));
        }
        if !arguments.address.has_port() {
            return Err(UsageError("--http3 needs a port: QUIC does not use Unix sockets".into()));
        }
    }
    let limits = Limits::default().message_size(arguments.max_size.0).frames_per_message(u32::MAX);
    let mut acceptor = Acceptor::new().limits(limits);
    if !matches!(arguments.mode.to, Some(Upstream::WebSocket(_))) {
        acceptor = acceptor.subprotocols(arguments.subprotocol.iter().map(String::as_str));
    } else if !arguments.subprotocol.is_empty() {
        return Err(UsageError("--subprotocol: the server behind --to chooses the subprotocol".into()));
    }
    for pattern in &arguments.allow_origin {
        acceptor = acceptor.allow_origin(pattern);
    }
    if arguments.compress {
        acceptor = acceptor.compression(Compression::ContextTakeover);
    }
    // Finds every invalid option before the address is bound.
    Connector::new().pair(&acceptor).map_err(|error| UsageError(error.to_string()))?;
    let log = arguments.log.log();
    let mut server = Server::new().acceptor(acceptor).on_error(move |error| log.server_error(&error));
    if let Some(config) = arguments.certificate.config(log)? {
        server = server.tls(Arc::new(config));
    }
    if arguments.http2 {
        server = server.http2();
    }
    if let Some(folder) = &arguments.files {
        server = files::serve_folder(server, folder, guard.clone(), alt_svc.clone())?;
    }
    Ok(Prepared { server, guard, alt_svc })
}

/// Serves until a signal arrives. A second signal ends the program at once.
async fn serve(prepared: Prepared, arguments: ServeArguments) -> Exit {
    let Prepared { server, guard, alt_svc } = prepared;
    let secure = arguments.certificate.is_used();
    let log = arguments.log.log();
    let (bound, udp) = match bind(&arguments).await {
        Ok(bound) => bound,
        Err(error) => {
            return failed(&format!("{} can't be listened on: {error}", arguments.address), Exit::Failure);
        }
    };
    guard.set(&bound);
    if let (Some(address), Some(_)) = (bound.tcp_address(), &udp) {
        alt_svc.set(address.port());
    }
    let mode = Mode::new(arguments.mode);
    let server = mode.check_requests(server, guard, alt_svc, arguments.max_size);
    // Before scripts are told that the server is there.
    let mut signals = Signals::new();
    if let Err(error) = announce(&bound, secure) {
        return failed(&format!("stdout: {error}"), Exit::Failure);
    }
    let options =
        ShutdownOptions::new(SHUTDOWN_TIMEOUT).close_frame(CloseCode::GOING_AWAY, "the server ends");
    let (first, arrived) = oneshot::channel::<()>();
    let server = server.shutdown(async { drop(arrived.await) }, options);
    let mut serving = pin!(async {
        match bound {
            Bound::Tcp(listener) => serve_tcp(server, listener, udp, &mode, log).await,
            #[cfg(unix)]
            Bound::Unix(listener, _file) => server.serve(listener, mode.handler(log)).await,
        }
    });
    let (mut first, mut exit) = (Some(first), Exit::Success);
    loop {
        tokio::select! {
            result = &mut serving => return match result {
                Ok(_) => exit,
                Err(error) => failed(&error, Exit::Failure),
            },
            number = signals.next() => {
                exit = Exit::Signal(number);
                match first.take() {
                    Some(first) => drop(first.send(())),
                    None => return exit,
                }
            }
        }
    }
}

/// Serves TCP, and HTTP/3 if there is a socket for it. One shutdown ends both.
async fn serve_tcp(
    server: Server,
    listener: TcpListener,
    udp: Option<UdpSocket>,
    mode: &Mode,
    log: Log,
) -> io::Result<ShutdownSummary> {
    let over_tcp = server.clone().serve(listener, mode.clone().handler(log));
    let Some(socket) = udp else { return over_tcp.await };
    let over_udp = http3::serve(server, socket, mode.clone().handler(log));
    let (summary, _) = tokio::try_join!(over_tcp, over_udp)?;
    Ok(summary)
}

/// Binds the address: for TCP or a Unix socket, and for UDP if HTTP/3 is served.
async fn bind(arguments: &ServeArguments) -> io::Result<(Bound, Option<UdpSocket>)> {
    if arguments.http3 {
        let (bound, socket) = arguments.address.bind_with_udp().await?;
        return Ok((bound, Some(socket)));
    }
    Ok((arguments.address.bind().await?, None))
}

/// Prints the URL of the server, as one line for scripts that wait for it.
fn announce(bound: &Bound, secure: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", bound.url(secure)?)?;
    out.flush()
}
