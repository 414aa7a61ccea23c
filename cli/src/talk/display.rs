//! What is printed: messages on stdout, everything else on stderr.

use std::cell::Cell;
use std::fmt::Display as Printable;
use std::io::{self, IsTerminal, Write};

use bowline::Message;

use crate::talk::arguments::Verbosity;
use crate::talk::encoding::{Encoding, Item};
use crate::talk::escape;
use crate::talk::input::Split;
use crate::talk::stdout::{Stdout, StdoutEnded};

/// What is printed.
pub(super) struct Display {
    stdout: Stdout,
    layout: Layout,
    encoding: Encoding,
    /// The byte after each message.
    end: u8,
    verbosity: Verbosity,
    hint: Cell<Hint>,
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

impl Display {
    pub(super) fn new(encoding: Encoding, split: Split, verbosity: Verbosity) -> Self {
        let layout = if io::stdout().is_terminal() { Layout::Terminal } else { Layout::Pipe };
        let end = if split == Split::Nulls { b'\0' } else { b'\n' };
        let hint = Cell::new(if encoding == Encoding::Text { Hint::Due } else { Hint::Given });
        Self { stdout: Stdout::new(io::stdout()), layout, encoding, end, verbosity, hint }
    }

    /// Prints an item that was received.
    pub(super) async fn received(&self, item: &Item) -> Result<(), StdoutEnded> {
        match item {
            Item::Message(message) => self.stdout.write(self.render(message)).await,
            Item::Control(_) => Ok(()),
        }
    }

    /// Prints a line to stderr, if the user wants to know.
    pub(super) fn notice(&self, verbosity: Verbosity, text: &dyn Printable) {
        if self.verbosity >= verbosity {
            // A closed stderr is no reason to end.
            let _ = writeln!(anstream::stderr(), "bowline: {text}");
        }
    }

    /// Waits until stdout can't be written any more.
    pub(super) async fn ended(&self) {
        self.stdout.ended().await;
    }

    /// Waits until all messages are on stdout.
    pub(super) async fn finish(self) -> io::Result<()> {
        self.stdout.finish().await
    }

    fn render(&self, message: &Message) -> Vec<u8> {
        let mut bytes = match (message, self.layout) {
            (Message::Text(text), Layout::Terminal) => escape::text(text).into_bytes(),
            (Message::Text(text), Layout::Pipe) => with_room_for_end(text.as_bytes()),
            (Message::Binary(binary), layout) => match self.encode(binary, layout) {
                Some(text) => text.into_bytes(),
                None => return binary.to_vec(),
            },
        };
        bytes.push(self.end);
        bytes
    }

    /// Encodes a binary message as text, or not at all. Terminals always receive text.
    fn encode(&self, binary: &bowline::bytes::Bytes, layout: Layout) -> Option<String> {
        if let Hint::Due = self.hint.replace(Hint::Given) {
            let text = "binary messages are printed in hex: see --binary, --base64 and --json";
            self.notice(Verbosity::Notices, &text);
        }
        match layout {
            Layout::Terminal if self.encoding == Encoding::Raw => Encoding::Hex.encode(binary),
            _ => self.encoding.encode(binary),
        }
    }
}

fn with_room_for_end(bytes: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(bytes.len() + 1);
    copy.extend_from_slice(bytes);
    copy
}
