//! The limit: the floor, and what bowline's contract asks of any implementation.
//!
//! A message has memory of its own, as its receiver may keep it. Any task may send, so that each direction is behind a
//! lock. A future that goes on and on lets others have their turn. Everything else is left out: frames are not checked,
//! nobody waits for a turn to send, and there are neither control frames nor an end of the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::coop::poll_proceed;

use super::Side;
use crate::frames::{copy_masked, encode_header, header};

const SIZE: usize = 256 * 1024;

thread_local! {
    /// Those of the connection that reads or writes, until it has nothing more in them.
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// # Panics
///
/// It has no client.
pub async fn echo(side: Side, mut stream: TcpStream) -> io::Result<()> {
    assert_eq!(side, Side::Server, "the limit has a server alone");
    side.shake_hands(&mut stream).await?;
    let (read, write) = stream.into_split();
    let mut socket = Socket {
        receive: Mutex::new(Receive { read, buffer: Vec::new(), start: 0, end: 0 }),
        transmit: Mutex::new(Transmit { write, buffer: Vec::new() }),
        corked: AtomicBool::new(false),
    };
    while let Some((first, payload)) = socket.recv().await? {
        socket.send(first, payload).await?;
    }
    Ok(())
}

struct Socket {
    receive: Mutex<Receive>,
    transmit: Mutex<Transmit>,
    /// More messages are in memory.
    corked: AtomicBool,
}

struct Receive {
    read: OwnedReadHalf,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

struct Transmit {
    write: OwnedWriteHalf,
    buffer: Vec<u8>,
}

impl Socket {
    async fn recv(&mut self) -> io::Result<Option<(u8, Bytes)>> {
        poll_fn(|cx| {
            let budget = ready!(poll_proceed(cx));
            let mut receive = lock(&self.receive);
            loop {
                if let Some(message) = receive.take() {
                    let more = receive.has_frame();
                    drop(receive);
                    if self.corked.load(Ordering::SeqCst) != more {
                        self.corked.store(more, Ordering::SeqCst);
                    }
                    budget.made_progress();
                    return Poll::Ready(Ok(Some(message)));
                }
                if ready!(receive.poll_fill(cx))? == 0 {
                    return Poll::Ready(Ok(None));
                }
            }
        })
        .await
    }

    async fn send(&self, first: u8, payload: Bytes) -> io::Result<()> {
        let mut payload = Some(payload);
        poll_fn(|cx| {
            let budget = ready!(poll_proceed(cx));
            let mut transmit = lock(&self.transmit);
            if let Some(payload) = payload.take() {
                transmit.accept(first, &payload);
            }
            budget.made_progress();
            if !self.corked.load(Ordering::SeqCst) {
                ready!(transmit.poll_write(cx))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

impl Receive {
    #[inline]
    fn take(&mut self) -> Option<(u8, Bytes)> {
        let bytes = &self.buffer[self.start..self.end];
        let found = header(bytes)?;
        let payload = bytes[found.size..].get(..found.len as usize)?;
        let mut message = Vec::with_capacity(payload.len());
        copy_masked(payload, found.key, &mut message);
        self.start += found.size + payload.len();
        Some((found.first, message.into()))
    }

    #[inline]
    fn has_frame(&self) -> bool {
        let bytes = &self.buffer[self.start..self.end];
        header(bytes).is_some_and(|found| bytes.len() - found.size >= found.len as usize)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.is_empty() {
            self.buffer = INPUT.take();
            self.buffer.resize(SIZE, 0);
        }
        let mut buf = ReadBuf::new(&mut self.buffer[self.end..]);
        let poll = Pin::new(&mut self.read).poll_read(cx, &mut buf)?;
        let count = buf.filled().len();
        self.end += count;
        if self.end == 0 {
            INPUT.set(std::mem::take(&mut self.buffer));
        }
        poll.map(|()| Ok(count))
    }
}

impl Transmit {
    #[inline]
    fn accept(&mut self, first: u8, payload: &[u8]) {
        if self.buffer.capacity() == 0 {
            self.buffer = OUTPUT.take();
        }
        encode_header(first, payload.len(), None, &mut self.buffer);
        self.buffer.extend_from_slice(payload);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let count = ready!(Pin::new(&mut self.write).poll_write(cx, &self.buffer))?;
            self.buffer.drain(..count);
        }
        OUTPUT.set(std::mem::take(&mut self.buffer));
        Poll::Ready(Ok(()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
