//! The output of a conversation: messages on stdout, everything else on stderr, and both in a recording.

mod json_text;
pub(super) mod record;
pub(super) mod stdout;
pub(super) mod style;

use std::cell::{Cell, RefCell};
use std::fmt::Display as Printable;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use record::Recording;
use stdout::{Stdout, StdoutEnded};
use style::Style;

use crate::escape;
use crate::talk::encoding::Encoding;
use crate::talk::item::Item;
use crate::talk::json_line::Direction;
use crate::talk::prompt::Printer;

/// The amount of what is printed to stderr.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Verbosity {
    Errors,
    Notices,
    Heads,
    Frames,
}

/// The view of a conversation.
pub(super) struct Display {
    stdout: Stdout,
    notices: Notices,
    style: Style,
    verbosity: Verbosity,
    start: Instant,
    last_sent: Cell<Option<Instant>>,
    recording: RefCell<Recording>,
    hint: Cell<Hint>,
}

/// The place where notices go.
#[derive(Clone, Copy)]
enum Notices {
    Stderr,
    /// To stdout, which is the terminal, between the messages: above the line of the prompt.
    Prompt,
}

/// The hint that binary messages are written in hex.
#[derive(Clone, Copy)]
enum Hint {
    Due,
    Given,
}

impl Display {
    pub(super) fn new(
        style: Style,
        verbosity: Verbosity,
        recording: Recording,
        prompt: Option<Printer>,
    ) -> Self {
        let (stdout, notices) = match prompt {
            Some(printer) => (Stdout::new(printer), Notices::Prompt),
            None => (Stdout::new(io::stdout()), Notices::Stderr),
        };
        Self {
            stdout,
            notices,
            style,
            verbosity,
            start: Instant::now(),
            last_sent: Cell::new(None),
            recording: RefCell::new(recording),
            hint: Cell::new(if style.hides_binary() { Hint::Due } else { Hint::Given }),
        }
    }

    /// Returns whether there is a prompt.
    pub(super) fn has_prompt(&self) -> bool {
        matches!(self.notices, Notices::Prompt)
    }

    /// Returns whether control frames are shown anywhere.
    pub(super) fn shows_control_frames(&self) -> bool {
        self.style.encoding() == Encoding::Json
            || self.verbosity >= Verbosity::Frames
            || self.recording.borrow().is_on()
    }

    /// Shows an item that was received.
    pub(super) async fn received(&self, item: &Item) -> Result<(), StdoutEnded> {
        let time = self.start.elapsed();
        self.note(item, Direction::In, time);
        if item.is_binary()
            && let Hint::Due = self.hint.replace(Hint::Given)
        {
            let text = "binary messages are printed in hex: see --binary, --base64 and --json";
            self.notice(Verbosity::Notices, &text);
        }
        let latency = self.last_sent.get().map(|sent| sent.elapsed());
        match self.style.render(item, time, latency) {
            Some(bytes) => self.stdout.write(bytes).await,
            None => Ok(()),
        }
    }

    /// Shows an item that was sent.
    pub(super) fn sent(&self, item: &Item) {
        if let Item::Message(_) = item {
            self.last_sent.set(Some(Instant::now()));
        }
        self.note(item, Direction::Out, self.start.elapsed());
    }

    /// Prints a line to stderr, if the user wants to know.
    pub(super) fn notice(&self, verbosity: Verbosity, text: &dyn Printable) {
        if self.verbosity >= verbosity {
            self.print(&format!("bowline: {text}\n"));
        }
    }

    /// Prints lines to stderr, if the user wants to know.
    pub(super) fn lines(&self, verbosity: Verbosity, lines: &[String]) {
        if self.verbosity >= verbosity {
            self.print(&(lines.join("\n") + "\n"));
        }
    }

    /// Waits until stdout can't be written any more.
    pub(super) async fn ended(&self) {
        self.stdout.ended().await;
    }

    /// Waits until everything is on stdout.
    pub(super) async fn finish(self) -> io::Result<()> {
        self.stdout.finish().await
    }

    /// Begins the recording: a connection is open.
    pub(super) fn begin_recording(&self) {
        self.report_recording(self.recording.borrow_mut().begin());
    }

    /// Returns whether an error has ended the recording.
    pub(super) fn recording_has_failed(&self) -> bool {
        self.recording.borrow().has_failed()
    }

    fn report_recording(&self, result: Result<(), String>) {
        if let Err(error) = result {
            self.notice(Verbosity::Errors, &error);
        }
    }

    fn note(&self, item: &Item, direction: Direction, time: Duration) {
        self.report_recording(self.recording.borrow_mut().add(item, direction, time));
        if self.verbosity >= Verbosity::Frames {
            self.lines(Verbosity::Frames, &[style::summary(item, direction, time)]);
        }
    }

    fn print(&self, text: &str) {
        match self.notices {
            Notices::Prompt => self.stdout.write_now(text.into()),
            Notices::Stderr => print(text),
        }
    }
}

/// Prints an error to stderr. It may have several lines, some of them the server's.
pub(super) fn error(text: &str) {
    let text = if io::stderr().is_terminal() { escape::text(text) } else { text.to_owned() };
    print(&format!("bowline: {text}\n"));
}

fn print(text: &str) {
    // A closed stderr is no reason to end.
    let _ = anstream::stderr().write_all(text.as_bytes());
}
