//! What is shown of a conversation: messages on stdout, everything else on stderr, and both in a recording.

use std::cell::{Cell, RefCell};
use std::fmt::Display as Printable;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime};

use bowline::bytes::Bytes;
use bowline::{ControlFrame, Message};

use crate::talk::arguments::{Timestamps, Verbosity};
use crate::talk::encoding::{Encoding, Item};
use crate::talk::ending;
use crate::talk::escape;
use crate::talk::input::Split;
use crate::talk::json_line::{self, Direction};
use crate::talk::record::Recording;
use crate::talk::stdout::{Stdout, StdoutEnded};

/// What is shown of a conversation.
pub(super) struct Display {
    stdout: Stdout,
    style: Style,
    verbosity: Verbosity,
    start: Instant,
    recording: RefCell<Recording>,
    hint: Cell<Hint>,
}

/// The form of messages on stdout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    layout: Layout,
    encoding: Encoding,
    /// The byte after each message.
    end: u8,
    timestamps: Timestamps,
}

/// The reader of stdout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Layout {
    /// A person. Control characters are escaped.
    Terminal,
    /// A program. Messages are written as they are.
    Pipe,
}

/// The hint that binary messages are written in hex.
#[derive(Clone, Copy)]
enum Hint {
    Due,
    Given,
}

impl Style {
    pub(super) fn new(encoding: Encoding, split: Split, timestamps: Timestamps) -> Self {
        let layout = if io::stdout().is_terminal() { Layout::Terminal } else { Layout::Pipe };
        let end = if split == Split::Nulls { b'\0' } else { b'\n' };
        Self { layout, encoding, end, timestamps }
    }
}

impl Display {
    pub(super) fn new(style: Style, verbosity: Verbosity, recording: Recording) -> Self {
        Self {
            stdout: Stdout::new(io::stdout()),
            style,
            verbosity,
            start: Instant::now(),
            recording: RefCell::new(recording),
            hint: Cell::new(if style.encoding == Encoding::Text { Hint::Due } else { Hint::Given }),
        }
    }

    /// Returns whether control frames are shown anywhere.
    pub(super) fn shows_control_frames(&self) -> bool {
        self.style.encoding == Encoding::Json
            || self.verbosity >= Verbosity::Frames
            || self.recording.borrow().is_on()
    }

    /// Shows an item that was received.
    pub(super) async fn received(&self, item: &Item) -> Result<(), StdoutEnded> {
        let time = self.start.elapsed();
        self.note(item, Direction::In, time);
        match (item, self.style.encoding) {
            (item, Encoding::Json) => self.stdout.write(self.json(item, time)).await,
            (Item::Message(message), _) => self.stdout.write(self.render(message)).await,
            (Item::Control(_), _) => Ok(()),
        }
    }

    /// Shows an item that was sent.
    pub(super) fn sent(&self, item: &Item) {
        self.note(item, Direction::Out, self.start.elapsed());
    }

    /// Prints a line to stderr, if the user wants to know.
    pub(super) fn notice(&self, verbosity: Verbosity, text: &dyn Printable) {
        if self.verbosity >= verbosity {
            // A closed stderr is no reason to end.
            let _ = writeln!(anstream::stderr(), "bowline: {text}");
        }
    }

    /// Prints lines of the server's to stderr, if the user wants to know.
    pub(super) fn lines(&self, verbosity: Verbosity, lines: &[String]) {
        if self.verbosity >= verbosity {
            for line in lines {
                let _ = writeln!(anstream::stderr(), "{line}");
            }
        }
    }

    /// Prints a text of several lines, some of them the server's, as an error.
    pub(super) fn error(&self, text: &str) {
        let mut stderr = anstream::stderr();
        let shown = if io::stderr().is_terminal() { escape::text(text) } else { text.to_owned() };
        let _ = writeln!(stderr, "bowline: {shown}");
    }

    /// Waits until stdout can't be written any more.
    pub(super) async fn ended(&self) {
        self.stdout.ended().await;
    }

    /// Waits until all messages are on stdout.
    pub(super) async fn finish(self) -> io::Result<()> {
        self.stdout.finish().await
    }

    fn note(&self, item: &Item, direction: Direction, time: Duration) {
        let recorded = self.recording.borrow_mut().add(item, direction, time);
        if let Err(error) = recorded {
            self.notice(Verbosity::Errors, &error);
        }
        if self.verbosity >= Verbosity::Frames {
            let arrow = if direction == Direction::In { '<' } else { '>' };
            self.lines(
                Verbosity::Frames,
                &[format!("{arrow} {:.3} s: {}", time.as_secs_f64(), summary(item))],
            );
        }
    }

    fn json(&self, item: &Item, time: Duration) -> Vec<u8> {
        let line = json_line::encode(item, Direction::In, time);
        let mut bytes = match self.style.layout {
            Layout::Terminal => escape::json(&line).into_bytes(),
            Layout::Pipe => line.into_bytes(),
        };
        bytes.push(b'\n');
        bytes
    }

    fn render(&self, message: &Message) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(message.len() + 40);
        if self.style.timestamps == Timestamps::Shown {
            let time = humantime::format_rfc3339_millis(SystemTime::now());
            let _ = write!(bytes, "{time} ");
        }
        match (message, self.style.layout) {
            (Message::Text(text), Layout::Terminal) => bytes.extend(escape::text(text).into_bytes()),
            (Message::Text(text), Layout::Pipe) => bytes.extend_from_slice(text.as_bytes()),
            (Message::Binary(binary), layout) => match self.encode(binary, layout) {
                Some(text) => bytes.extend(text.into_bytes()),
                None => return binary.to_vec(),
            },
        }
        bytes.push(self.style.end);
        bytes
    }

    /// Encodes a binary message as text, or not at all. Terminals always receive text.
    fn encode(&self, binary: &Bytes, layout: Layout) -> Option<String> {
        if let Hint::Due = self.hint.replace(Hint::Given) {
            let text = "binary messages are printed in hex: see --binary, --base64 and --json";
            self.notice(Verbosity::Notices, &text);
        }
        match layout {
            Layout::Terminal if self.style.encoding == Encoding::Raw => Encoding::Hex.encode(binary),
            _ => self.style.encoding.encode(binary),
        }
    }
}

/// Describes an item, without the content of messages.
fn summary(item: &Item) -> String {
    let payload = |bytes: &Bytes| escape::line(&String::from_utf8_lossy(bytes));
    match item {
        Item::Message(Message::Text(text)) => format!("text, {} bytes", text.len()),
        Item::Message(Message::Binary(binary)) => format!("binary, {} bytes", binary.len()),
        Item::Control(ControlFrame::Ping(bytes)) => format!("ping {:?}", payload(bytes)),
        Item::Control(ControlFrame::Pong(bytes)) => format!("pong {:?}", payload(bytes)),
        Item::Control(ControlFrame::Close(frame)) => format!("close {}", ending::code_and_reason(frame)),
    }
}
