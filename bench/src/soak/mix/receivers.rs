//! The tasks that receive, in each way of the API.

use std::io;

use bowline::{
    Error, ErrorKind, Message, MessageKind, MessageReader, WebSocket, WebSocketIo, WebSocketStreamSink,
};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::io::{AsyncReadExt, ReadHalf};

use super::cancel::{Cancels, cancelling};
use super::ledger::Inbox;
use super::plan::Reading;
use super::record::{HEADER, Record};
use super::senders::{Half, Json, error_of};

/// A `WebSocket`, or a type that was made from it.
pub struct Receiver {
    handle: Handle,
    /// The error that interrupted the reading of a message, if more than its end was missing.
    pub interruption: Option<Error>,
}

enum Handle {
    Recv(WebSocket),
    Reader(WebSocket),
    Stream(WebSocket),
    Split(SplitStream<WebSocketStreamSink>),
    Bytes(ReadHalf<WebSocketIo>),
    Json(WebSocket),
}

/// The reason why nothing more is received.
#[derive(Debug)]
pub enum Stop {
    /// The connection has failed, or was closed with an abnormal code.
    Failed(Error),
    /// The received bytes are not those that were sent.
    Wrong(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Wrong(text)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error_of(error))
    }
}

impl Receiver {
    /// Creates the receiver for `reading`, and returns the writing half that is left.
    pub fn new(reading: Reading, kind: MessageKind, socket: WebSocket) -> (Self, Option<Half>) {
        let (handle, half) = match reading {
            Reading::Recv => (Handle::Recv(socket), None),
            Reading::Reader => (Handle::Reader(socket), None),
            Reading::Stream => (Handle::Stream(socket), None),
            Reading::Json => (Handle::Json(socket), None),
            Reading::Split => {
                let (sink, stream) = socket.into_stream_sink().split();
                (Handle::Split(stream), Some(Half::Sink(sink)))
            }
            Reading::Bytes => {
                let (read, write) = tokio::io::split(socket.into_io(kind));
                (Handle::Bytes(read), Some(Half::Bytes(write)))
            }
        };
        (Self { handle, interruption: None }, half)
    }

    /// Receives a message or a piece of one. Returns `false` at the end.
    pub async fn receive(&mut self, inbox: &mut Inbox, cancels: &mut Cancels) -> Result<bool, Stop> {
        let message = match &mut self.handle {
            Handle::Recv(socket) => cancelling!(cancels, socket.recv())?,
            Handle::Stream(socket) => cancelling!(cancels, socket.next()).transpose()?,
            Handle::Split(stream) => cancelling!(cancels, stream.next()).transpose()?,
            Handle::Reader(socket) => {
                let Some(reader) = cancelling!(cancels, socket.reader())? else { return Ok(false) };
                return match read(reader, inbox, cancels).await {
                    // The next reader reports how the connection has ended.
                    Err(Stop::Failed(error)) if self.interruption.is_none() => {
                        self.interruption = Some(error);
                        Ok(true)
                    }
                    read => read.map(|()| true),
                };
            }
            Handle::Bytes(stream) => {
                let mut buffer = vec![0; 1 + cancels.random.below(64 * 1024) as usize];
                let count = cancelling!(cancels, stream.read(&mut buffer))?;
                inbox.piece(&buffer[..count])?;
                return Ok(count > 0);
            }
            Handle::Json(socket) => {
                let Some(value) = cancelling!(cancels, socket.recv_json::<Json>())? else { return Ok(false) };
                let (channel, sender, number, body) = value;
                let record = Record { kind: MessageKind::Text, channel, sender, number, len: body.len() };
                inbox.parts(&record, &body)?;
                return Ok(true);
            }
        };
        if let Some(message) = &message {
            take(message, inbox)?;
        }
        Ok(message.is_some())
    }

    /// Receives again after the end. The result has to be unchanged.
    pub async fn receive_again(&mut self) -> Option<Result<(), ErrorKind>> {
        match &mut self.handle {
            Handle::Recv(socket) => {
                let again = socket.recv().await;
                let said = |message: Option<Message>| message.map_or(Ok(()), |_| Err(ErrorKind::InvalidData));
                Some(again.map_err(|error| error.kind()).and_then(said))
            }
            _ => None,
        }
    }
}

fn take(message: &Message, inbox: &mut Inbox) -> Result<(), String> {
    inbox.message(message.kind(), message.as_bytes())
}

/// Reads a message piece by piece, and some messages not to the end.
async fn read(mut reader: MessageReader<'_>, inbox: &mut Inbox, cancels: &mut Cancels) -> Result<(), Stop> {
    let kind = reader.kind();
    let mut buffer = vec![0; 1 + cancels.random.below(32 * 1024) as usize];
    if inbox.is_stream() {
        loop {
            let count = cancelling!(cancels, reader.read(&mut buffer))?;
            inbox.piece(&buffer[..count])?;
            if count == 0 {
                return Ok(());
            }
        }
    }
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        let count = cancelling!(cancels, reader.read(&mut header[filled..]))?;
        if count == 0 {
            return Err(Stop::Wrong(format!("a message of {filled} bytes")));
        }
        filled += count;
    }
    let record = inbox.header(Some(kind), &header)?;
    let mut rest = record.body();
    // The last message, and a torn one, carry more than a number.
    let is_skipped = usize::from(record.sender) < inbox.senders() && cancels.random.below(16) == 0;
    let enough = if is_skipped { cancels.random.below(record.len as u64 + 1) as usize } else { usize::MAX };
    loop {
        if record.len - rest.len() >= enough {
            return Ok(inbox.skipped(&record)?);
        }
        let count = cancelling!(cancels, reader.read(&mut buffer))?;
        if count == 0 {
            break;
        }
        let Some((expected, after)) = rest.split_at_checked(count) else {
            return Err(Stop::Wrong(format!("{record:?} is longer")));
        };
        if buffer[..count] != *expected {
            return Err(Stop::Wrong(format!("{record:?} has another body")));
        }
        rest = after;
    }
    if !rest.is_empty() {
        return Err(Stop::Wrong(format!("{record:?} is shorter, by {} bytes", rest.len())));
    }
    Ok(inbox.arrived(&record)?)
}
