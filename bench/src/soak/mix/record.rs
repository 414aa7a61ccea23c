//! Messages that carry their sender and number, and whose every byte is predictable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bowline::{Message, MessageKind, Prepared};

use crate::soak::peer::Random;

/// The size of the header: T or B, the channel, the sender, the number, the size of the body, and a checksum
/// of these.
pub const HEADER: usize = 32;

/// The size of the largest body.
pub const LARGEST: usize = 2 << 20;

/// The sender of the last message of a side.
pub const LAST: u8 = 0xFE;

/// The sender of messages that are never finished.
pub const TORN: u8 = 0xFD;

/// Bodies consist of whole units, and so never break a character.
const UNIT: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: MessageKind,
    /// The connection, or the group for messages prepared for many.
    pub channel: u32,
    pub sender: u8,
    pub number: u32,
    pub len: usize,
}

impl Record {
    /// Creates a record with a body of about `size` bytes.
    pub fn new(kind: MessageKind, channel: u32, sender: u8, number: u32, size: usize) -> Self {
        Self { kind, channel, sender, number, len: size.min(LARGEST) / UNIT * UNIT }
    }

    pub fn encode(&self) -> Vec<u8> {
        [self.header().as_bytes(), self.body()].concat()
    }

    pub fn header(&self) -> String {
        let letter = if self.kind == MessageKind::Text { 'T' } else { 'B' };
        let Self { channel, sender, number, len, .. } = self;
        let start = format!("{letter}{channel:08x}{sender:02x}{number:08x}{len:08x}");
        let check = check(start.as_bytes());
        format!("{start}{check:05x}")
    }

    pub fn parse(header: &[u8]) -> Result<Self, String> {
        let broken = || format!("no header of a message: {}", header.escape_ascii());
        let text = std::str::from_utf8(header).map_err(|_| broken())?;
        let number = |from, to| {
            let digits = text.get(from..to).ok_or_else(broken)?;
            u32::from_str_radix(digits, 16).map_err(|_| broken())
        };
        let kind = match header.first() {
            Some(b'T') => MessageKind::Text,
            Some(b'B') => MessageKind::Binary,
            _ => return Err(broken()),
        };
        let len = number(19, 27)? as usize;
        if number(27, HEADER)? != check(&header[..27]) || len > LARGEST {
            return Err(broken());
        }
        Ok(Self { kind, channel: number(1, 9)?, sender: number(9, 11)? as u8, number: number(11, 19)?, len })
    }

    /// Returns a part of a book; parts are unlikely to be alike.
    pub fn body(&self) -> &'static [u8] {
        let book = &books()[usize::from(self.kind == MessageKind::Text)];
        let who = u64::from(self.channel) << 40 ^ u64::from(self.sender) << 32 ^ u64::from(self.number);
        let units = (book.len() - self.len) / UNIT;
        let start = Random(who).next() as usize % units * UNIT;
        &book[start..start + self.len]
    }
}

fn check(bytes: &[u8]) -> u32 {
    let sum =
        bytes.iter().fold(0x811C_9DC5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    sum & 0xF_FFFF
}

/// Returns a stock of bytes and text, twice as long as the largest body, and as compressible as typical data.
pub fn books() -> &'static [Vec<u8>; 2] {
    static BOOKS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    BOOKS.get_or_init(|| {
        [
            book(|random| (random.next() as u32).to_le_bytes()),
            book(|random| {
                let words =
                    ["the ", "wind", "\u{1F600}", "a\u{20ac}", "\u{e9}\u{e9}", "{\"a\"", ": 1,", "row\n"];
                let word = words[random.below(8) as usize].as_bytes();
                word.try_into().expect("all words are one unit")
            }),
        ]
    })
}

fn book(unit: impl Fn(&mut Random) -> [u8; UNIT]) -> Vec<u8> {
    let mut random = Random(7);
    let mut book: Vec<u8> = Vec::with_capacity(2 * LARGEST + 1024);
    while book.len() < 2 * LARGEST {
        let count = 1 + random.below(40) as usize;
        if random.below(3) == 0 || book.len() < 1024 {
            (0..count).for_each(|_| book.extend(unit(&mut random)));
        } else {
            let back = (count + random.below(4000) as usize).min(book.len() / UNIT);
            let start = book.len() - back * UNIT;
            book.extend_from_within(start..(start + count * UNIT).min(book.len()));
        }
    }
    book
}

/// Prepared messages, by the number of the group, the sender, the number of the message and its kind.
#[derive(Default)]
pub struct Stock(Mutex<HashMap<(u32, u8, u32, bool), Arc<Prepared>>>);

impl Stock {
    /// Returns the prepared message for all, of the given kind if only one may be sent.
    pub fn get(&self, group: u32, sender: u8, number: u32, kind: Option<MessageKind>) -> Arc<Prepared> {
        let any = if number % 2 == 0 { MessageKind::Text } else { MessageKind::Binary };
        let kind = kind.unwrap_or(any);
        let size = (number as usize * 97 + usize::from(sender) * 1543) % (40 << (number % 11));
        let mut stock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = stock.entry((group, sender, number, kind == MessageKind::Text)).or_insert_with(|| {
            let bytes = Record::new(kind, group, sender, number, size).encode();
            Arc::new(Prepared::new(match kind {
                MessageKind::Text => String::from_utf8(bytes).expect("the record is of text").into(),
                MessageKind::Binary => Message::from(bytes),
            }))
        });
        Arc::clone(prepared)
    }

    /// Removes the prepared messages of a group.
    pub fn forget(&self, group: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, ..), _| *of != group);
    }
}
