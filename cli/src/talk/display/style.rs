//! The form of messages on stdout.

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, SystemTime};

use anstyle::Style as Ansi;
use bowline::bytes::Bytes;
use bowline::{CloseFrame, ControlFrame, Message};

use crate::escape;
use crate::talk::display::json_text::{self, Colours};
use crate::talk::encoding::Encoding;
use crate::talk::input::Split;
use crate::talk::item::Item;
use crate::talk::json_line::{self, Direction};

/// A message later than this after the last one that was sent is hardly its reply.
const REPLY: Duration = Duration::from_mins(1);

const FAINT: Ansi = Ansi::new().dimmed();

/// The form of messages on stdout.
#[derive(Clone, Copy, Debug)]
pub(in crate::talk) struct Style {
    layout: Layout,
    encoding: Encoding,
    /// The byte after each message.
    end: u8,
    timestamps: Timestamps,
    colours: Colours,
}

/// The use of times before messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::talk) enum Timestamps {
    Shown,
    Hidden,
}

/// The reader of stdout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::talk) enum Layout {
    /// A person at the prompt, who also wants to see which lines are the server's, and how fast it answers.
    Prompt,
    /// A person. Control characters are escaped, and JSON is laid out.
    Terminal,
    /// A program. Messages are written as they are.
    Pipe,
}

impl Layout {
    /// The layout for stdout, if there is no prompt.
    pub(in crate::talk) fn of_stdout() -> Self {
        if io::stdout().is_terminal() || Colours::of_stdout() == Colours::On {
            Self::Terminal
        } else {
            Self::Pipe
        }
    }
}

impl Colours {
    /// Terminals have colours, unless `NO_COLOR` or `CLICOLOR` forbids them. `CLICOLOR_FORCE` says that a
    /// person reads the pipe.
    fn of_stdout() -> Self {
        match anstream::AutoStream::choice(&io::stdout()) {
            anstream::ColorChoice::Never => Self::Off,
            _ => Self::On,
        }
    }
}

impl Style {
    pub(in crate::talk) fn new(
        layout: Layout,
        encoding: Encoding,
        split: Split,
        timestamps: Timestamps,
    ) -> Self {
        let end = if split == Split::Nulls { b'\0' } else { b'\n' };
        Self { layout, encoding, end, timestamps, colours: Colours::of_stdout() }
    }

    pub(in crate::talk) fn encoding(self) -> Encoding {
        self.encoding
    }

    /// Returns whether binary messages are written in hex, although nobody asked for that.
    pub(in crate::talk) fn hides_binary(self) -> bool {
        self.encoding == Encoding::Text && self.layout != Layout::Prompt
    }

    /// Renders an item that was received, or nothing if it is not for stdout. `time` is that since the
    /// beginning, and `latency` that since the last message was sent.
    pub(in crate::talk) fn render(
        self,
        item: &Item,
        time: Duration,
        latency: Option<Duration>,
    ) -> Option<Vec<u8>> {
        let message = match (item, self.encoding) {
            (item, Encoding::Json) => return Some(self.line_of_json(item, time)),
            (Item::Message(message), _) => message,
            (Item::Control(_), _) => return None,
        };
        let mut bytes = Vec::with_capacity(message.len() + 64);
        if self.timestamps == Timestamps::Shown {
            let time = humantime::format_rfc3339_millis(SystemTime::now());
            let _ = write!(bytes, "{time} ");
        }
        match (message, self.layout) {
            (Message::Text(text), Layout::Pipe) => bytes.extend_from_slice(text.as_bytes()),
            (Message::Binary(binary), Layout::Pipe) => match self.encoding.encode(binary) {
                Some(text) => bytes.extend_from_slice(text.as_bytes()),
                None => return Some(binary.to_vec()),
            },
            (message, Layout::Terminal) => bytes.extend(self.readable(message).into_bytes()),
            (message, Layout::Prompt) => {
                let arrow = self.faint("<");
                let latency = latency.filter(|latency| *latency < REPLY).map(in_words);
                let latency = latency.map(|latency| self.faint(&format!("  {latency}"))).unwrap_or_default();
                // No line of a message can be taken for one of this program's.
                let text = self.readable(message).replace('\n', "\n  ");
                let _ = write!(bytes, "{arrow} {text}{latency}");
            }
        }
        bytes.push(self.end);
        Some(bytes)
    }

    fn line_of_json(self, item: &Item, time: Duration) -> Vec<u8> {
        let line = json_line::encode(item, Direction::In, time);
        let line = match self.layout {
            Layout::Pipe => line,
            Layout::Prompt | Layout::Terminal => escape::json(&line),
        };
        (line + "\n").into_bytes()
    }

    /// A message for people.
    fn readable(self, message: &Message) -> String {
        match message {
            Message::Text(text) => {
                json_text::lay_out(text, self.colours).unwrap_or_else(|| escape::text(text))
            }
            Message::Binary(binary) => {
                // Terminals never receive raw bytes.
                let text = self.encoding.encode(binary).or_else(|| Encoding::Hex.encode(binary));
                let size = self.faint(&format!("({} bytes)", binary.len()));
                match self.layout {
                    Layout::Prompt => format!("{size} {}", text.unwrap_or_default()),
                    Layout::Terminal | Layout::Pipe => text.unwrap_or_default(),
                }
            }
        }
    }

    fn faint(self, text: &str) -> String {
        match self.colours {
            Colours::On => format!("{FAINT}{text}{FAINT:#}"),
            Colours::Off => text.to_owned(),
        }
    }
}

/// Describes an item for `-vv`, without the content of messages.
pub(in crate::talk) fn summary(item: &Item, direction: Direction, time: Duration) -> String {
    let payload = |bytes: &Bytes| escape::line(&String::from_utf8_lossy(bytes));
    let text = match item {
        Item::Message(Message::Text(text)) => format!("text, {} bytes", text.len()),
        Item::Message(Message::Binary(binary)) => format!("binary, {} bytes", binary.len()),
        Item::Control(ControlFrame::Ping(bytes)) => format!("ping \"{}\"", payload(bytes)),
        Item::Control(ControlFrame::Pong(bytes)) => format!("pong \"{}\"", payload(bytes)),
        Item::Control(ControlFrame::Close(frame)) => format!("close {}", code_and_reason(frame)),
    };
    let arrow = if direction == Direction::In { '<' } else { '>' };
    format!("{arrow} {:.3} s: {text}", time.as_secs_f64())
}

/// Describes a Close frame: `4001 "logged out"`.
pub(in crate::talk) fn code_and_reason(frame: &CloseFrame) -> String {
    match frame.reason() {
        "" => frame.code().0.to_string(),
        reason => format!("{} \"{}\"", frame.code().0, escape::line(reason)),
    }
}

/// Writes a time with three digits: `0.42 ms`, `12.3 ms`, `1.23 s`.
pub(in crate::talk) fn in_words(time: Duration) -> String {
    let (value, unit) = match time.as_secs_f64() {
        seconds if seconds < 1.0 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    match value {
        value if value < 10.0 => format!("{value:.2} {unit}"),
        value if value < 100.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}
