//! The prompt: a line that is edited while messages are printed above it.
//!
//! ```text
//! thread of the editor                       conversation                    thread of stdout
//! readline --> command::parse --orders--> Outbox --> socket
//!    ^                                               socket --> Display --> Stdout --> Printer
//!    '----------------------- messages to print above the line ----------------------------'
//! ```
//!
//! A call of `readline` can't be ended from outside, so the editor's thread is detached. A conversation that ends
//! while a line is edited leaves the terminal in raw mode: [`Screen::restore`] puts that right.

mod command;
mod history;

use std::io::{self, IsTerminal, Write};
use std::thread;

use rustyline::config::Config;
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::talk::encoding::Encoding;
use crate::talk::item::{Input, Order};
use command::Command;
use history::HistoryFile;

/// The number of lines that the history keeps.
const HISTORY: usize = 1000;

/// The text before the line.
const PROMPT: &str = "> ";

/// Moves up a line and down again. The editor prints it and nothing changes.
const NOTHING: &str = "\u{1b}[A\n";

/// A prompt that was not shown yet.
pub(super) struct Prompt {
    editor: DefaultEditor,
    history: HistoryFile,
    encoding: Encoding,
}

/// Returns whether people are at both ends: a prompt is of use.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

impl Prompt {
    /// Prepares a prompt with the history of a host.
    pub(super) fn new(host: &str, port: u16, encoding: Encoding) -> Result<(Self, Printer), ReadlineError> {
        let config = Config::builder()
            .max_history_size(HISTORY)?
            .history_ignore_dups(true)?
            .history_ignore_space(true);
        let mut editor = DefaultEditor::with_config(config.build())?;
        let printer = Printer(Box::new(editor.create_external_printer()?));
        let history = HistoryFile::new(host, port);
        history.load(&mut editor);
        Ok((Self { editor, history, encoding }, printer))
    }

    /// Shows the prompt, and starts to read.
    pub(super) fn read(mut self) -> Receiver<Input> {
        let (orders, receiver) = mpsc::channel(1);
        thread::spawn(move || {
            let last = self.read_all(&orders);
            let _ = orders.blocking_send(Ok(last));
        });
        receiver
    }

    /// Reads and sends orders until the user leaves, and returns the last order.
    fn read_all(&mut self, orders: &Sender<Input>) -> Order {
        loop {
            let line = match self.editor.readline(PROMPT) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => return Order::Interrupt,
                Err(_) => return Order::Leave,
            };
            self.history.add(&mut self.editor, &line);
            match command::parse(&line, self.encoding) {
                Ok(Command::Nothing) => {}
                Ok(Command::Help) => print(command::HELP),
                Ok(Command::Order(order)) => {
                    if orders.blocking_send(Ok(order)).is_err() {
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
    /// Waits until everything is on the terminal. The editor takes one text at a time, after it has printed the
    /// one before: when it takes the second of these, it has printed everything else.
    fn drop(&mut self) {
        for _ in 0..2 {
            let _ = self.0.print(NOTHING.into());
        }
    }
}

/// The state of the terminal before the prompt.
pub(super) struct Screen {
    #[cfg(unix)]
    modes: Option<rustix::termios::Termios>,
}

impl Screen {
    /// Remembers the state of the terminal.
    pub(super) fn save() -> Self {
        Self {
            #[cfg(unix)]
            modes: rustix::termios::tcgetattr(io::stdin()).ok(),
        }
    }

    /// Removes the line that is edited, and ends the raw mode and bracketed paste.
    pub(super) fn restore(&self) {
        print("\r\u{1b}[J\u{1b}[?2004l");
        #[cfg(unix)]
        if let Some(modes) = &self.modes {
            use rustix::termios::{OptionalActions, tcsetattr};
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, modes);
        }
    }
}
