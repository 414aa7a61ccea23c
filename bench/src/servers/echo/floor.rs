//! The floor: a tokio TCP echo without a library.
//!
//! The floor finds the ends of frames, unmasks payloads from one shared buffer into another, and writes them
//! back. The floor validates nothing, and a connection stores only the bytes of incomplete frames.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Side;
use crate::frames::{copy_masked, encode_header, header};

const SIZE: usize = 256 * 1024;

thread_local! {
    static BUFFERS: RefCell<(Vec<u8>, Vec<u8>)> =
        RefCell::new((vec![0; SIZE], Vec::with_capacity(SIZE + 64 * 1024)));
}

pub async fn echo<S: AsyncRead + AsyncWrite + Unpin>(side: Side, mut stream: S) -> io::Result<()> {
    side.shake_hands(&mut stream).await?;
    echo_opened(side, stream).await
}

/// Echoes on a stream whose handshake is done.
pub async fn echo_opened<S: AsyncRead + AsyncWrite + Unpin>(side: Side, stream: S) -> io::Result<()> {
    let mut echo = Echo { stream, frames: Frames::new(side), unwritten: Vec::new() };
    poll_fn(|cx| echo.poll(cx)).await
}

struct Echo<S> {
    stream: S,
    frames: Frames,
    unwritten: Vec<u8>,
}

/// The frames that arrive, piece by piece.
pub struct Frames {
    /// The generator of masking keys, for clients.
    random: Option<Random>,
    partial: Vec<u8>,
    remaining: u64,
    /// The XOR of the received masking key and the sent one, where present.
    key: [u8; 4],
}

impl<S: AsyncRead + AsyncWrite + Unpin> Echo<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        BUFFERS.with_borrow_mut(|(input, output)| {
            loop {
                while !self.unwritten.is_empty() {
                    let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unwritten))?;
                    self.unwritten.drain(..count);
                    if self.unwritten.is_empty() {
                        self.unwritten = Vec::new();
                    }
                }
                ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                let mut buf = ReadBuf::new(input);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
                if buf.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                output.clear();
                self.frames.echo(buf.filled(), output);
                let mut rest = output.as_slice();
                while !rest.is_empty() {
                    match Pin::new(&mut self.stream).poll_write(cx, rest)? {
                        Poll::Ready(count) => rest = &rest[count..],
                        Poll::Pending => {
                            self.unwritten = rest.to_vec();
                            break;
                        }
                    }
                }
            }
        })
    }
}

impl Frames {
    pub fn new(side: Side) -> Self {
        let random = (side == Side::Client).then_some(Random(0x9E37_79B9_7F4A_7C15));
        Self { random, partial: Vec::new(), remaining: 0, key: [0; 4] }
    }

    /// Appends the replies to the frames in `bytes`.
    #[inline]
    pub fn echo(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.remaining == 0 {
                let found = if self.partial.is_empty() {
                    let Some(found) = header(bytes) else {
                        self.partial.extend_from_slice(bytes);
                        return;
                    };
                    bytes = &bytes[found.size..];
                    found
                } else {
                    self.partial.push(bytes[0]);
                    bytes = &bytes[1..];
                    let Some(found) = header(&self.partial) else { continue };
                    self.partial.clear();
                    found
                };
                let key = self.random.as_mut().map(Random::next);
                encode_header(found.first, found.len as usize, key, out);
                self.remaining = found.len;
                self.key = key.unwrap_or(found.key);
            }
            let now = self.remaining.min(bytes.len() as u64) as usize;
            copy_masked(&bytes[..now], self.key, out);
            self.key.rotate_left(now % 4);
            self.remaining -= now as u64;
            bytes = &bytes[now..];
        }
    }
}

/// xorshift64, the cheapest generator of masking keys.
struct Random(u64);

impl Random {
    fn next(&mut self) -> [u8; 4] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as u32).to_ne_bytes()
    }
}
