//! `bowline serve`: a server.
//!
//! A [`Mode`] is the work that the server does for a connection. `run` binds the address, prints its URL, and
//! serves until a signal arrives; connections are then closed with 1001.

mod address;
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

use bowline::{Acceptor, CloseCode, Compression, Connector, Limits, Server, ShutdownOptions};
use clap::Args;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use self::address::{Address, Bound};
use self::certificate::CertificateArguments;
use self::gateway::Upstream;
use self::guard::HostGuard;
use self::log::LogArguments;
use self::mode::{Mode, ModeArguments};
use crate::connect::{Size, UsageError};
use crate::exit::{Exit, Signals};

/// The time in which connections are closed after a signal. The programs of `--exec` end within it.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(6);

const EXAMPLES: &str = "\
Examples:
  bowline serve                             echo on ws://127.0.0.1:8080
  bowline serve :9000 --broadcast           each message goes to all clients; on all addresses
  bowline serve --files site --broadcast    a page and its WebSockets on one port
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
    /// The largest message, in bytes, or with K, M or G
    #[arg(long, value_name = "SIZE", default_value = "64M", help_heading = "Server")]
    max_size: Size,
    #[command(flatten)]
    certificate: CertificateArguments,
    #[command(flatten)]
    log: LogArguments,
}

/// Runs `bowline serve`.
pub(crate) fn run(arguments: ServeArguments) -> Exit {
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, Exit::Failure),
    };
    if arguments.mode.demo {
        return runtime.block_on(demo::run());
    }
    let exit = {
        let _context = runtime.enter();
        match prepare(&arguments) {
            Ok((server, guard)) => runtime.block_on(serve(server, guard, arguments)),
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

/// Checks the options, and returns the server that they describe.
///
/// Must be called within a runtime.
fn prepare(arguments: &ServeArguments) -> Result<(Server, HostGuard), UsageError> {
    let guard = HostGuard::new(&arguments.allow_origin);
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
        server = files::serve_folder(server, folder, guard.clone())?;
    }
    Ok((server, guard))
}

/// Serves until a signal arrives. A second signal ends the program at once.
async fn serve(server: Server, guard: HostGuard, arguments: ServeArguments) -> Exit {
    let secure = arguments.certificate.is_used();
    let log = arguments.log.log();
    let bound = match arguments.address.bind().await {
        Ok(bound) => bound,
        Err(error) => {
            return failed(&format!("{} can't be listened on: {error}", arguments.address), Exit::Failure);
        }
    };
    guard.set(&bound);
    let mode = Mode::new(arguments.mode);
    let server = mode.check_requests(server, guard, arguments.max_size);
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
            Bound::Tcp(listener) => server.serve(listener, mode.handler(log)).await,
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

/// Prints the URL of the server, as one line for scripts that wait for it.
fn announce(bound: &Bound, secure: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", bound.url(secure)?)?;
    out.flush()
}
