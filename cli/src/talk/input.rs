//! What is to be done: what comes from the prompt, or from a pipe, which a thread of its own reads.
//!
//! The thread is detached: a read that blocks can't be ended, and must not keep the process alive. It is at
//! most [`AHEAD`] messages ahead of those that are sent.

use std::io::{self, BufRead};
use std::thread;

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::talk::encoding::Encoding;
use crate::talk::item::{Input, Order};
use crate::talk::prompt::Prompt;

/// The number of messages that are read before they can be sent.
const AHEAD: usize = 16;

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
    let (sender, receiver) = mpsc::channel(AHEAD);
    thread::spawn(move || {
        if let Err(error) = read_all(&mut io::stdin().lock(), split, encoding, &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

fn read_all(
    stdin: &mut impl BufRead,
    split: Split,
    encoding: Encoding,
    sender: &Sender<Input>,
) -> Result<(), String> {
    for number in 1_u64.. {
        let at = |error: String| match split {
            Split::Lines => format!("stdin, line {number}: {error}"),
            Split::Nulls => format!("stdin, message {number}: {error}"),
            Split::Whole => format!("stdin: {error}"),
        };
        let Some(bytes) = read_one(stdin, split).map_err(|error| at(error.to_string()))? else { break };
        let item = encoding.decode(bytes).map_err(at)?;
        if item.is_some_and(|item| sender.blocking_send(Ok(Order::Send(item))).is_err()) {
            break;
        }
    }
    Ok(())
}

/// Reads one message, or `None` at the end.
fn read_one(stdin: &mut impl BufRead, split: Split) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let end = match split {
        Split::Lines => b'\n',
        Split::Nulls => b'\0',
        Split::Whole => {
            let read = stdin.read_to_end(&mut bytes)?;
            return Ok((read > 0).then_some(bytes));
        }
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
