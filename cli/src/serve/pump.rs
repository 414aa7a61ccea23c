//! Messages of a WebSocket to and from a byte stream: the pipes of a program, a TCP connection.
//!
//! Both directions run at the same time, so that a program that answers before it has read everything blocks
//! nobody. A full side makes the other wait: nothing is collected.

use std::io;
use std::time::Duration;

use bowline::{CloseCode, Error, Payload, Sender, WebSocket};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::sleep;

use super::log::ConnectionLog;

/// The largest line, in bytes. A program that never ends its line would otherwise cost memory without end.
const LINE_MAX: u64 = 16 * 1024 * 1024;
/// The time that a stream has to take the last message after the connection has ended.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest binary message that is made of what a stream has to say.
const CHUNK: usize = 64 * 1024;

/// The translation between messages and bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// A message is a line.
    Lines,
    /// A message is any number of bytes.
    Bytes,
}

/// The direction that ended first.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer closed the connection, or it was lost.
    Peer(Result<(), Error>),
    /// The stream has ended.
    Stream(io::Result<()>),
}

/// Copies in both directions until one ends.
///
/// The end of the peer drops `writer`, by which a program sees the end of its input. `reader` remains with
/// the caller.
pub(crate) async fn pump<R, W>(
    socket: &mut WebSocket,
    reader: &mut BufReader<R>,
    writer: W,
    framing: Framing,
    log: &ConnectionLog,
) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let sender = socket.sender();
    // A stream that takes nothing hides the end of the connection from the direction that writes to it.
    let lost = async {
        sender.closed().await;
        sleep(LAST_WRITE_TIMEOUT).await;
    };
    tokio::select! {
        ended = messages_to_stream(socket, writer, framing, log) => End::Peer(ended),
        ended = stream_to_messages(reader, &sender, framing) => End::Stream(ended),
        () = lost => End::Peer(Ok(())),
    }
}

async fn messages_to_stream<W: AsyncWrite + Unpin>(
    socket: &mut WebSocket,
    writer: W,
    framing: Framing,
    log: &ConnectionLog,
) -> Result<(), Error> {
    // A program may close its input and still have something to say.
    let mut writer = Some(writer);
    while let Some(message) = socket.recv().await? {
        log.received(&message);
        if let Some(open) = &mut writer
            && write(open, message.as_bytes(), framing).await.is_err()
        {
            writer = None;
        }
    }
    Ok(())
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8], framing: Framing) -> io::Result<()> {
    writer.write_all(bytes).await?;
    if framing == Framing::Lines {
        writer.write_all(b"\n").await?;
    }
    writer.flush().await
}

async fn stream_to_messages<R: AsyncRead + Unpin>(
    reader: &mut BufReader<R>,
    sender: &Sender,
    framing: Framing,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let payload: Payload<'_> = match framing {
            Framing::Bytes => {
                buffer.reserve(CHUNK);
                if reader.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
                (&buffer).into()
            }
            Framing::Lines => {
                if reader.take(LINE_MAX).read_until(b'\n', &mut buffer).await? == 0 {
                    return Ok(());
                }
                line(&mut buffer)?
            }
        };
        // A closed connection is told by the other direction.
        if sender.send(payload).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The message of a line: text, or binary if the line is not UTF-8.
fn line(buffer: &mut Vec<u8>) -> io::Result<Payload<'_>> {
    if buffer.last() == Some(&b'\n') {
        buffer.pop();
        if buffer.last() == Some(&b'\r') {
            buffer.pop();
        }
    } else if buffer.len() as u64 == LINE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a line has more than {LINE_MAX} bytes"),
        ));
    }
    Ok(match std::str::from_utf8(buffer) {
        Ok(text) => text.into(),
        Err(_) => buffer.as_slice().into(),
    })
}

/// Closes the connection after its stream ended.
pub(crate) async fn close(socket: &WebSocket, code: CloseCode, reason: &str) {
    // The peer may be gone already; the handler has nothing to add.
    let _ = socket.close(code, reason).await;
}
