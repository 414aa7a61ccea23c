//! The bytes of a case, kept for a report.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The bytes of one direction that are kept.
const KEPT: usize = 64 << 10;

/// The bytes of a head or body that are kept.
const TEXT_KEPT: usize = 4 << 10;

/// The entries that are kept.
const ENTRIES: usize = 4096;

/// The headers whose values are not shown.
const SECRETS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// The lines of a report.
const LINES: usize = 200;

/// The bytes of a frame or line that are shown.
const SHOWN: usize = 512;

/// The bytes that were written and read, in order, as far as memory is spent on them.
#[derive(Debug)]
pub(crate) struct Transcript {
    began: Instant,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    at: Duration,
    direction: Direction,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Bytes of frames, and the number of bytes after them that were not kept.
    Frames(Vec<u8>, u64),
    /// Text: a head of HTTP, or an event such as the end of the connection.
    Text(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Sent,
    Received,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), entries: Vec::new() }
    }

    /// Adds bytes of frames, to the last entry if it has the same direction.
    pub(crate) fn add(&mut self, direction: Direction, bytes: &[u8]) {
        let keep = bytes.len().min(KEPT.saturating_sub(self.kept(direction)));
        match self.entries.last_mut() {
            Some(Entry { direction: last, content: Content::Frames(kept, omitted), .. })
                if *last == direction =>
            {
                // Bytes after a gap would be decoded as something else.
                let keep = if *omitted == 0 { keep } else { 0 };
                kept.extend_from_slice(&bytes[..keep]);
                *omitted += (bytes.len() - keep) as u64;
            }
            _ => {
                let content = Content::Frames(bytes[..keep].to_vec(), (bytes.len() - keep) as u64);
                self.push(direction, content);
            }
        }
    }

    /// Adds text, the start of which is kept.
    pub(crate) fn add_text(&mut self, direction: Direction, text: &[u8]) {
        for line in text[..text.len().min(TEXT_KEPT)].split(|byte| *byte == b'\n') {
            let line = line.trim_ascii_end();
            match line.iter().position(|byte| *byte == b':') {
                _ if line.is_empty() => {}
                // A report is made to be passed on.
                Some(colon) if is_secret(&line[..colon]) => {
                    self.note(direction, format!("{}: [hidden]", line[..colon].escape_ascii()));
                }
                _ => self.note(direction, line[..line.len().min(SHOWN)].escape_ascii().to_string()),
            }
        }
        if text.len() > TEXT_KEPT {
            self.note(direction, format!("... {} more bytes", text.len() - TEXT_KEPT));
        }
    }

    /// Adds an event that is no bytes.
    pub(crate) fn note(&mut self, direction: Direction, text: impl Into<String>) {
        self.push(direction, Content::Text(text.into()));
    }

    fn push(&mut self, direction: Direction, content: Content) {
        // A peer that pings without end must not fill the memory.
        if self.entries.len() < ENTRIES {
            self.entries.push(Entry { at: self.began.elapsed(), direction, content });
        }
    }

    /// The number of bytes of frames that are kept.
    fn kept(&self, direction: Direction) -> usize {
        let of_direction = self.entries.iter().filter(|entry| entry.direction == direction);
        of_direction
            .map(|entry| match &entry.content {
                Content::Frames(bytes, _) => bytes.len(),
                Content::Text(_) => 0,
            })
            .sum()
    }

    /// The transcript as text: each frame decoded, and as hexadecimal digits.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = [Vec::new(), Vec::new()];
        for Entry { at, direction, content } in &self.entries {
            let stamp = format!("{:7.3} {}", at.as_secs_f64(), direction.arrow());
            match content {
                Content::Text(text) => lines.push(format!("{stamp} {text}")),
                Content::Frames(bytes, omitted) => {
                    // A frame may be split over entries, if the other direction has bytes in between.
                    let pending: &mut Vec<u8> = &mut rest[usize::from(*direction == Direction::Received)];
                    pending.extend_from_slice(bytes);
                    let used = describe(pending, &stamp, &mut lines);
                    pending.drain(..used);
                    if *omitted > 0 {
                        lines.push(format!("{stamp} ... {omitted} more bytes"));
                    }
                }
            }
            if lines.len() > LINES {
                lines.truncate(LINES);
                lines.push("...".into());
                return lines;
            }
        }
        for (bytes, direction) in rest.iter().zip([Direction::Sent, Direction::Received]) {
            if !bytes.is_empty() {
                let text = match describe_frame(bytes) {
                    Some(frame) => frame.text,
                    None => format!("part of a header [{}]", hex(bytes)),
                };
                lines.push(format!("        {} {text}", direction.arrow()));
            }
        }
        lines
    }
}

/// Returns `true` if a header may contain a password or a session.
pub(crate) fn is_secret(name: &[u8]) -> bool {
    SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
}

impl Direction {
    fn arrow(self) -> &'static str {
        match self {
            Self::Sent => "->",
            Self::Received => "<-",
        }
    }
}

/// Describes whole frames at the start of `bytes`, and returns their size.
fn describe(bytes: &[u8], stamp: &str, lines: &mut Vec<String>) -> usize {
    let mut used = 0;
    while lines.len() <= LINES {
        match describe_frame(&bytes[used..]) {
            Some(DecodedFrame { text, size, missing: 0 }) => {
                lines.push(format!("{stamp} {text}"));
                used += size;
            }
            // The rest may follow.
            _ => break,
        }
    }
    used
}

/// A frame, decoded.
struct DecodedFrame {
    text: String,
    /// The size of header and payload, as far as they are here.
    size: usize,
    /// The number of bytes of the payload that are not here.
    missing: u64,
}

/// Decodes the frame at the start of `bytes`, valid or not, as soon as its header is whole.
fn describe_frame(bytes: &[u8]) -> Option<DecodedFrame> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut header): (u64, usize) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        length => (u64::from(length), 2),
    };
    let key: Option<[u8; 4]> = if second & 0x80 == 0 {
        None
    } else {
        header += 4;
        Some(bytes.get(header - 4..header)?.try_into().ok()?)
    };
    let available = bytes.len() - header;
    let size = usize::try_from(length).unwrap_or(usize::MAX).min(available);
    let mut payload = bytes[header..header + size.min(SHOWN)].to_vec();
    if let Some(key) = key {
        bowline_proto::mask(&mut payload, key, 0);
    }
    let mut text = name_of(first & 0x0f);
    if first & 0x80 == 0 {
        text.push_str(", more fragments follow");
    }
    for (bit, name) in [(0x40, "RSV1"), (0x20, "RSV2"), (0x10, "RSV3")] {
        if first & bit != 0 {
            let _ = write!(text, ", {name}");
        }
    }
    text.push_str(if key.is_some() { ", masked" } else { ", unmasked" });
    let _ = write!(text, ", {length} bytes{}", shown(first & 0x0f, &payload));
    let missing = length - size as u64;
    if missing > 0 {
        let _ = write!(text, " ({size} of them here)");
    }
    let _ = write!(text, " [{}]", hex(&bytes[..header + size]));
    Some(DecodedFrame { text, size: header + size, missing })
}

fn name_of(opcode: u8) -> String {
    match opcode {
        0 => "continuation".into(),
        1 => "text".into(),
        2 => "binary".into(),
        8 => "Close".into(),
        9 => "Ping".into(),
        10 => "Pong".into(),
        other => format!("opcode {other:#x}"),
    }
}

fn shown(opcode: u8, payload: &[u8]) -> String {
    match (opcode, payload) {
        (_, []) => String::new(),
        (8, [high, low, reason @ ..]) => {
            format!(": {} \"{}\"", u16::from_be_bytes([*high, *low]), printable(reason))
        }
        _ => format!(": \"{}\"", printable(payload)),
    }
}

fn printable(bytes: &[u8]) -> String {
    let text: String = bytes[..bytes.len().min(64)].escape_ascii().to_string();
    if bytes.len() > 64 { text + "..." } else { text }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().take(SHOWN).enumerate() {
        let space = if index == 0 { "" } else { " " };
        let _ = write!(text, "{space}{byte:02x}");
    }
    if bytes.len() > SHOWN {
        let _ = write!(text, " ... {} more", bytes.len() - SHOWN);
    }
    text
}
