//! The limit: the floor plus the demands of bowline's contract on any implementation.
//!
//! A message owns its memory, as its receiver may keep the message, and text is valid UTF-8. Any task may
//! send, so each direction is behind a lock. A busy future yields to others. hyper handles HTTP. Everything
//! else is left out: neither requests nor frames are checked, senders don't queue, and there are no control
//! frames and no closing handshakes.

use std::cell::RefCell;
use std::future::{poll_fn, ready};
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{self, Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::coop::poll_proceed;
use tokio_util::io::poll_read_buf;

use super::Side;
use crate::frames::{copy_masked, encode_header, header, mask};
use crate::handshake::accept_key;

const SIZE: usize = 256 * 1024;

/// A message with at least this many missing bytes is read straight into its own memory, and written from
/// there.
const LARGE: usize = 64 * 1024;

const TEXT: u8 = 1;

/// The number of masking keys generated at once.
const KEYS_AT_ONCE: usize = 256;

thread_local! {
    /// The buffers of the connection that reads or writes, until that connection has emptied them.
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// A block of masking keys, some of which are used.
    static KEYS: RefCell<(usize, [[u8; 4]; KEYS_AT_ONCE])> =
        const { RefCell::new((KEYS_AT_ONCE, [[0; 4]; KEYS_AT_ONCE])) };
}

pub async fn echo(side: Side, mut stream: TcpStream) -> io::Result<()> {
    let stream = if side == Side::Server {
        Box::pin(shake_hands(stream)).await?
    } else {
        side.shake_hands(&mut stream).await?;
        stream
    };
    let (read, write) = stream.into_split();
    let masks = side == Side::Client;
    let mut socket = Socket {
        receive: Mutex::new(Receive { read, buffer: Vec::new(), start: 0, end: 0, large: None }),
        transmit: Mutex::new(Transmit { write, masks, buffer: Vec::new(), large: Bytes::new() }),
        corked: AtomicBool::new(false),
    };
    while let Some((first, payload)) = socket.recv().await? {
        socket.send(first, payload).await?;
    }
    Ok(())
}

async fn shake_hands(stream: TcpStream) -> io::Result<TcpStream> {
    let service = service_fn(|request: Request<Incoming>| {
        let key = request.headers().get(SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "Upgrade")
            .header(SEC_WEBSOCKET_ACCEPT, accept_key(key))
            .body(String::new());
        ready(response)
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    poll_fn(|cx| connection.poll_without_shutdown(cx)).await.map_err(io::Error::other)?;
    Ok(connection.into_parts().io.into_inner())
}

struct Socket {
    receive: Mutex<Receive>,
    transmit: Mutex<Transmit>,
    /// Set if further messages are in memory.
    corked: AtomicBool,
}

struct Receive {
    read: OwnedReadHalf,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    large: Option<Box<Large>>,
}

/// An incomplete message. Its memory is allocated at once, whereas bowline allocates as bytes arrive.
struct Large {
    first: u8,
    key: [u8; 4],
    payload: Vec<u8>,
    missing: usize,
}

struct Transmit {
    write: OwnedWriteHalf,
    /// The generator of masking keys, for clients.
    masks: bool,
    buffer: Vec<u8>,
    /// A payload to write after the buffer.
    large: Bytes,
}

impl Socket {
    async fn recv(&mut self) -> io::Result<Option<(u8, Bytes)>> {
        poll_fn(|cx| {
            let budget = task::ready!(poll_proceed(cx));
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
                if task::ready!(receive.poll_fill(cx))? == 0 {
                    return Poll::Ready(Ok(None));
                }
            }
        })
        .await
    }

    async fn send(&self, first: u8, payload: Bytes) -> io::Result<()> {
        let (mut payload, mut accepted) = (payload, false);
        poll_fn(|cx| {
            let budget = task::ready!(poll_proceed(cx));
            let mut transmit = lock(&self.transmit);
            if !accepted {
                accepted = true;
                if payload.len() < LARGE || transmit.masks {
                    transmit.accept(first, &payload);
                } else {
                    transmit.accept_large(first, mem::take(&mut payload));
                }
            }
            budget.made_progress();
            if !self.corked.load(Ordering::SeqCst) {
                task::ready!(transmit.poll_write(cx))?;
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
        let Some(found) = header(bytes) else {
            return if self.large.is_some() { self.take_large() } else { None };
        };
        let Some(payload) = bytes[found.size..].get(..found.len as usize) else {
            return self.begin_large();
        };
        let mut message = payload.to_vec();
        unmask(&mut message, found.key);
        if found.first & 0x0f == TEXT {
            assert!(simdutf8::basic::from_utf8(&message).is_ok(), "the load sends text");
        }
        self.start += found.size + payload.len();
        Some((found.first, message.into()))
    }

    #[cold]
    fn begin_large(&mut self) -> Option<(u8, Bytes)> {
        let bytes = &self.buffer[self.start..self.end];
        let found = header(bytes)?;
        let arrived = &bytes[found.size..];
        let missing = found.len as usize - arrived.len();
        if missing >= LARGE {
            let mut payload = Vec::with_capacity(found.len as usize);
            copy_masked(arrived, found.key, &mut payload);
            self.start = self.end;
            let mut key = found.key;
            key.rotate_left(payload.len() % 4);
            self.large = Some(Box::new(Large { first: found.first, key, payload, missing }));
        }
        None
    }

    #[cold]
    fn take_large(&mut self) -> Option<(u8, Bytes)> {
        let large = self.large.take_if(|large| large.missing == 0)?;
        Some((large.first, large.payload.into()))
    }

    #[inline]
    fn has_frame(&self) -> bool {
        let bytes = &self.buffer[self.start..self.end];
        header(bytes).is_some_and(|found| bytes.len() - found.size >= found.len as usize)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(large) = &mut self.large {
            return large.poll_fill(&mut self.read, cx);
        }
        if self.start < self.end {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        self.end -= self.start;
        self.start = 0;
        if self.buffer.is_empty() {
            self.buffer = INPUT.take();
            self.buffer.resize(SIZE, 0);
        }
        let stream: &TcpStream = self.read.as_ref();
        let buf = &mut self.buffer[self.end..];
        let poll = loop {
            if let Some(count) = read_at_once(stream, buf.len(), || stream.try_read(buf))? {
                break Poll::Ready(Ok(count));
            }
            if stream.poll_read_ready(cx)?.is_pending() {
                break Poll::Pending;
            }
        };
        if let Poll::Ready(Ok(count)) = poll {
            self.end += count;
        }
        if self.end == 0 {
            INPUT.set(mem::take(&mut self.buffer));
        }
        poll
    }
}

impl Large {
    #[cold]
    fn poll_fill(&mut self, read: &mut OwnedReadHalf, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let arrived = self.payload.len();
        let mut buf = (&mut self.payload).limit(self.missing);
        let count = task::ready!(poll_read_buf(Pin::new(read), cx, &mut buf))?;
        unmask(&mut self.payload[arrived..], self.key);
        self.key.rotate_left(count % 4);
        self.missing -= count;
        Poll::Ready(Ok(count))
    }
}

impl Transmit {
    #[inline]
    fn accept(&mut self, first: u8, payload: &[u8]) {
        let key = self.masks.then(masking_key);
        self.accept_header(first, payload.len(), key);
        match key {
            Some(key) => copy_masked(payload, key, &mut self.buffer),
            None => self.buffer.extend_from_slice(payload),
        }
    }

    #[cold]
    fn accept_large(&mut self, first: u8, payload: Bytes) {
        assert!(self.large.is_empty(), "the load waits for the reply to a large message");
        self.accept_header(first, payload.len(), None);
        self.large = payload;
    }

    #[inline]
    fn accept_header(&mut self, first: u8, len: usize, key: Option<[u8; 4]>) {
        if self.buffer.capacity() == 0 {
            self.buffer = OUTPUT.take();
        }
        encode_header(first, len, key, &mut self.buffer);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.large.is_empty() {
            return self.poll_write_large(cx);
        }
        while !self.buffer.is_empty() {
            let stream: &TcpStream = self.write.as_ref();
            match stream.try_write(&self.buffer) {
                Ok(count) if count == self.buffer.len() => self.buffer.clear(),
                Ok(count) => drop(self.buffer.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    task::ready!(stream.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        OUTPUT.set(mem::take(&mut self.buffer));
        Poll::Ready(Ok(()))
    }

    #[cold]
    fn poll_write_large(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.large.is_empty() {
            let slices = [IoSlice::new(&self.buffer), IoSlice::new(&self.large)];
            let count = task::ready!(Pin::new(&mut self.write).poll_write_vectored(cx, &slices))?;
            let of_buffer = count.min(self.buffer.len());
            self.buffer.drain(..of_buffer);
            self.large.advance(count - of_buffer);
        }
        self.large = Bytes::new();
        OUTPUT.set(mem::take(&mut self.buffer));
        Poll::Ready(Ok(()))
    }
}

/// Reads up to `size` bytes like tokio's `poll_read` on Linux, but without the task's budget, which is
/// already paid, and without its waker, which only a socket that is not ready needs.
#[inline]
fn read_at_once(
    stream: &TcpStream,
    size: usize,
    read: impl FnOnce() -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    let mut moved = None;
    let tried = stream.try_io(Interest::READABLE, || {
        let count = read()?;
        moved = Some(count);
        // A socket that accepted or returned fewer bytes is no longer ready.
        if (1..size).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match tried {
        Err(error) if moved.is_none() && error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(moved),
    }
}

/// Unmasks a payload; servers send unmasked ones.
#[inline]
fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    if key != [0; 4] {
        mask(bytes, key);
    }
}

/// Returns an unpredictable masking key (RFC 6455 5.3).
#[inline]
fn masking_key() -> [u8; 4] {
    KEYS.with_borrow_mut(|(used, keys)| {
        if *used == KEYS_AT_ONCE {
            getrandom(keys.as_flattened_mut(), GetRandomFlags::empty())
                .expect("the kernel gives random bytes");
            *used = 0;
        }
        *used += 1;
        keys[*used - 1]
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
