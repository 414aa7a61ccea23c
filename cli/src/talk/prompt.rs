//! The prompt: a line that is edited while messages are printed above it.
//!
//! ```text
//! thread of the editor                       conversation                    thread of stdout
//! readline --> command::parse --orders--> Outbox --> socket
//!    ^                                               socket --> Display --> Stdout --> Printer
//!    '----------------------- messages to print above the line ----------------------------'
//! ```
//!
//! A conversation may end while a line is edited, and the terminal is in raw mode: see [`Screen::restore`].

mod command;
mod history;

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use rustyline::config::Config;
use rustyline::error::{ReadlineError, Signal};
use rustyline::{DefaultEditor, ExternalPrinter};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::timeout;

use crate::talk::encoding::Encoding;
use crate::talk::item::{Input, Order};
use command::Command;
use history::HistoryFile;

/// The number of lines that the history keeps.
const HISTORY: usize = 1000;

/// The text before the line.
const PROMPT: &str = "> ";

/// The number of signals that ask the editor to end, and the pause after each.
#[cfg(unix)]
const SIGNALS: u32 = 20;
const SIGNAL_PAUSE: Duration = Duration::from_millis(50);

/// Moves up a line and down again. The editor prints it and nothing changes.
const NOTHING: &str = "\u{1b}[A\n";

/// A prompt that was not shown yet.
pub(super) struct Prompt {
    editor: DefaultEditor,
    history: HistoryFile,
    encoding: Encoding,
    /// Dropped at the end of the editor's thread.
    _thread: oneshot::Sender<()>,
}

/// Returns whether people are at both ends: a prompt is of use.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

impl Prompt {
    /// Prepares a prompt with the history of a host.
    pub(super) fn new(
        host: &str,
        port: u16,
        encoding: Encoding,
    ) -> Result<(Self, Printer, Screen), ReadlineError> {
        let config = Config::builder()
            .max_history_size(HISTORY)?
            .history_ignore_dups(true)?
            .history_ignore_space(true);
        let mut editor = DefaultEditor::with_config(config.build())?;
        let printer = Printer(Box::new(editor.create_external_printer()?));
        let history = HistoryFile::new(host, port);
        history.load(&mut editor);
        let (thread, ended) = oneshot::channel();
        Ok((Self { editor, history, encoding, _thread: thread }, printer, Screen::new(ended)))
    }

    /// Shows the prompt, and starts to read.
    pub(super) fn read(mut self) -> Receiver<Input> {
        let (orders, receiver) = mpsc::channel(1);
        thread::spawn(move || {
            let last = self.read_all(&orders);
            // The conversation may have ended before.
            let _ = orders.blocking_send(Ok([last].into()));
        });
        receiver
    }

    /// Reads and sends orders until the user leaves, and returns the last order.
    fn read_all(&mut self, orders: &Sender<Input>) -> Order {
        loop {
            let line = match self.editor.readline(PROMPT) {
                Ok(line) => line,
                // The size of the terminal has changed.
                Err(ReadlineError::Signal(Signal::Resize)) => continue,
                Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => return Order::Interrupt,
                Err(_) => return Order::Leave,
            };
            self.history.add(&mut self.editor, &line);
            match command::parse(&line, self.encoding) {
                Ok(Command::Nothing) => {}
                Ok(Command::Help) => print(command::HELP),
                Ok(Command::Order(order)) => {
                    if orders.blocking_send(Ok([order].into())).is_err() {
                        return Order::Leave;
                    }
                }
                Err(error) => print(&format!("bowline: {error}\n")),
            }
        }
    }
}

/// Prints while no line is edited.
fn print(text: &str) {
    // A terminal that is gone is noticed by the next `readline`.
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints above the line that is edited.
pub(super) struct Printer(Box<dyn ExternalPrinter + Send>);

impl Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.0.print(text).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Printer {
    /// Waits until everything is on the terminal. The editor takes one text at a time, after it has printed
    /// the one before: when it takes the second of these, it has printed everything else.
    fn drop(&mut self) {
        for _ in 0..2 {
            let _ = self.0.print(NOTHING.into());
        }
    }
}

/// The terminal, as it was before the prompt.
pub(super) struct Screen {
    #[cfg(unix)]
    modes: Option<rustix::termios::Termios>,
    /// Becomes ready when the editor's thread has ended.
    editor: oneshot::Receiver<()>,
}

impl Screen {
    /// Remembers the state of the terminal.
    fn new(editor: oneshot::Receiver<()>) -> Self {
        Self {
            #[cfg(unix)]
            modes: rustix::termios::tcgetattr(io::stdin()).ok(),
            editor,
        }
    }

    /// Ends the editing of a line, and puts the terminal in order.
    ///
    /// While a line is edited, a SIGINT goes to the editor, which puts the terminal in order itself. At any
    /// other time, nothing happens, so the signal is repeated until the editor's thread has ended.
    #[cfg(unix)]
    pub(super) async fn restore(mut self) {
        use rustix::process::{self, getpid, kill_process};
        use rustix::termios::{OptionalActions, tcsetattr};
        for _ in 0..SIGNALS {
            if let Err(TryRecvError::Closed) = self.editor.try_recv() {
                return;
            }
            let _ = kill_process(getpid(), process::Signal::INT);
            let _ = timeout(SIGNAL_PAUSE, &mut self.editor).await;
        }
        // The editor does not react. It may still be in raw mode, with bracketed paste.
        print("\r\u{1b}[J\u{1b}[?2004l");
        if let Some(modes) = &self.modes {
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, modes);
        }
    }

    /// Consoles of Windows need no such care.
    #[cfg(not(unix))]
    pub(super) async fn restore(mut self) {
        let _ = timeout(SIGNAL_PAUSE, &mut self.editor).await;
    }
}
