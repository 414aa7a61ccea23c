//! The input of a conversation: lines from the prompt, or from a pipe, which a thread of its own reads.
//!
//! The thread is detached: a read that blocks can't be ended, and must not keep the process alive. Messages
//! that arrive together are handed over together. The thread is at most two such batches ahead, each of one
//! message or of about [`BATCH`] bytes.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::thread;

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::talk::encoding::Encoding;
use crate::talk::item::{Input, Order};
use crate::talk::prompt::Prompt;

/// The bytes that are read at once.
const BATCH: usize = 64 * 1024;

/// The end of a message on stdin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Split {
    Lines,
    Nulls,
    Whole,
}

/// The other end of stdin.
pub(super) enum Source {
    Pipe(Split, Encoding),
    Prompt(Box<Prompt>),
}

impl Source {
    /// Starts to read.
    pub(super) fn read(self) -> Receiver<Input> {
        match self {
            Self::Pipe(split, encoding) => read_pipe(split, encoding),
            Self::Prompt(prompt) => prompt.read(),
        }
    }
}

fn read_pipe(split: Split, encoding: Encoding) -> Receiver<Input> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || {
        // What is left in the buffer tells which messages have arrived together.
        let mut stdin = BufReader::with_capacity(BATCH, io::stdin().lock());
        if let Err(error) = read_all(&mut stdin, split, encoding, &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

fn read_all(
    stdin: &mut BufReader<impl Read>,
    split: Split,
    encoding: Encoding,
    sender: &Sender<Input>,
) -> Result<(), String> {
    let mut batch = VecDeque::new();
    for number in 1_u64.. {
        match read_order(stdin, split, encoding) {
            Ok(Unit::Order(order)) => batch.push_back(order),
            Ok(Unit::Skipped) => {}
            Ok(Unit::End) => break,
            Err(error) => {
                let _ = sender.blocking_send(Ok(batch));
                return Err(match split {
                    Split::Lines => format!("stdin, line {number}: {error}"),
                    Split::Nulls => format!("stdin, message {number}: {error}"),
                    Split::Whole => format!("stdin: {error}"),
                });
            }
        }
        let has_more = split.end().is_some_and(|end| stdin.buffer().contains(&end));
        if !has_more && sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            break;
        }
    }
    Ok(())
}

/// A piece of stdin.
enum Unit {
    Order(Order),
    /// A message that is not to be sent.
    Skipped,
    End,
}

fn read_order(stdin: &mut impl BufRead, split: Split, encoding: Encoding) -> Result<Unit, String> {
    let Some(bytes) = read_one(stdin, split).map_err(|error| error.to_string())? else {
        return Ok(Unit::End);
    };
    Ok(encoding.decode(bytes)?.map_or(Unit::Skipped, |item| Unit::Order(Order::Send(item))))
}

impl Split {
    /// The byte after each message.
    fn end(self) -> Option<u8> {
        match self {
            Self::Lines => Some(b'\n'),
            Self::Nulls => Some(b'\0'),
            Self::Whole => None,
        }
    }
}

/// Reads one message, or `None` at the end.
fn read_one(stdin: &mut impl BufRead, split: Split) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let Some(end) = split.end() else {
        let read = stdin.read_to_end(&mut bytes)?;
        return Ok((read > 0).then_some(bytes));
    };
    if stdin.read_until(end, &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&end) {
        bytes.pop();
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::{Split, read_one};

    fn split(mut input: &[u8], split: Split) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| read_one(&mut input, split).unwrap()).collect()
    }

    #[test]
    fn messages_end_with_newlines_or_nulls_or_with_stdin() {
        assert_eq!(split(b"a\n\nb", Split::Lines), [&b"a"[..], b"", b"b"]);
        assert_eq!(split(b"a\nb\0c\0", Split::Nulls), [&b"a\nb"[..], b"c"]);
        assert_eq!(split(b"a\nb\n", Split::Whole), [b"a\nb\n"]);
        assert!(split(b"", Split::Whole).is_empty());
    }
}
