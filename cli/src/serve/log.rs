//! Lines about connections, on stderr.

mod writer;

use std::error::Error as StdError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bowline::http::request::Parts;
use bowline::{CloseFrame, Message, ServerError, WebSocket};
use clap::Args;
use writer::line;

/// The error of a handler, which the server prints.
pub(crate) type HandlerError = Box<dyn StdError + Send + Sync>;

/// The options of what is printed.
#[derive(Args, Debug)]
pub(crate) struct LogArguments {
    /// Print a line when a connection begins and ends; twice, one for each message
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Print errors alone
    #[arg(short, long)]
    quiet: bool,
}

impl LogArguments {
    pub(crate) fn log(&self) -> Log {
        Log(match (self.quiet, self.verbose) {
            (true, _) => Level::Quiet,
            (_, 0) => Level::Errors,
            (_, 1) => Level::Connections,
            (_, _) => Level::Messages,
        })
    }
}

/// The amount that is printed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Level {
    Quiet,
    Errors,
    Connections,
    Messages,
}

/// A printer of lines about connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log(Level);

/// The lines of one connection, which share a number.
pub(crate) struct ConnectionLog {
    log: Log,
    number: u64,
    since: Instant,
}

impl Log {
    /// Prints an error of the server, unless it is everyday noise such as a closed tab.
    pub(crate) fn server_error(self, error: &ServerError) {
        if self.0 >= Level::Connections || (self.0 >= Level::Errors && !error.is_noise()) {
            line(&error.to_string().replace("Acceptor::allow_origin", "--allow-origin"));
        }
    }

    /// Prints a line that users need, unless only errors are wanted.
    pub(crate) fn note(self, text: &str) {
        if self.0 >= Level::Errors {
            line(text);
        }
    }

    /// Begins the lines of a connection.
    pub(crate) fn connection(self, head: &Parts, socket: &WebSocket) -> ConnectionLog {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let opened = ConnectionLog {
            log: self,
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            since: Instant::now(),
        };
        if self.0 >= Level::Connections {
            let peer = socket.peer_addr().map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string());
            let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
            let subprotocol = socket.subprotocol().map(|name| format!(", {name}")).unwrap_or_default();
            line(&format!("#{} {peer} {path} {:?}{subprotocol}", opened.number, head.version));
        }
        opened
    }
}

impl ConnectionLog {
    /// Prints a message that was received.
    pub(crate) fn received(&self, message: &Message) {
        if self.log.0 >= Level::Messages {
            let kind = if message.as_text().is_some() { "text" } else { "binary" };
            line(&format!("#{} {kind}, {} bytes", self.number, message.len()));
        }
    }

    /// Prints the end of the connection.
    pub(crate) fn ended(&self, frame: Option<&CloseFrame>) {
        if self.log.0 >= Level::Connections {
            let end =
                frame.map_or_else(|| "without a Close frame".to_owned(), |frame| format!("with {frame}"));
            line(&format!("#{} ended {end} after {:.1} s", self.number, self.since.elapsed().as_secs_f64()));
        }
    }
}

/// Waits until all lines were printed, unless nobody reads stderr.
pub(crate) fn finish() {
    writer::finish();
}
