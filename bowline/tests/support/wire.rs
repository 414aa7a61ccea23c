//! A stream in memory that the test controls step by step.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Frame, take_frames};
use bowline::Role;

/// Returns a stream for the library, and the test's end of it.
pub fn wire() -> (Stream, Wire) {
    let state = Arc::new(Mutex::new(State {
        incoming: VecDeque::new(),
        incoming_end: None,
        outgoing: Vec::new(),
        room: usize::MAX,
        chunk: usize::MAX,
        hesitated: None,
        broken: None,
        waker: None,
        observer: None,
        shut_down: false,
        dropped: false,
        idle: false,
        reads: 0,
        writes: 0,
    }));
    (Stream(Arc::clone(&state)), Wire(state))
}

/// Returns a wire that is connected to the peer's end of a transport.
pub fn beyond(mut peer: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Wire {
    let (mut stream, wire) = wire();
    tokio::spawn(async move {
        // The ends of both streams are the result.
        let _ = tokio::io::copy_bidirectional(&mut peer, &mut stream).await;
    });
    wire
}

/// The library's end. It remembers only one waker in total, the last one, like the worst of streams.
pub struct Stream(Arc<Mutex<State>>);

/// The test's end.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<State>>);

struct State {
    incoming: VecDeque<u8>,
    incoming_end: Option<io::Result<()>>,
    outgoing: Vec<u8>,
    /// The number of bytes that may still be written.
    room: usize,
    /// The largest number of bytes per call.
    chunk: usize,
    /// For each direction, whether the last call returned `Pending`, if every other call does so.
    hesitated: Option<[bool; 2]>,
    broken: Option<io::ErrorKind>,
    waker: Option<Waker>,
    observer: Option<Waker>,
    shut_down: bool,
    dropped: bool,
    /// Set if the last read found no bytes.
    idle: bool,
    reads: usize,
    writes: usize,
}

impl State {
    fn hesitate(&mut self, direction: usize, cx: &mut Context<'_>) -> bool {
        let Some(hesitated) = &mut self.hesitated else { return false };
        hesitated[direction] = !hesitated[direction];
        if hesitated[direction] {
            cx.waker().wake_by_ref();
        }
        hesitated[direction]
    }

    fn wait(&mut self, cx: &mut Context<'_>) {
        self.waker = Some(cx.waker().clone());
    }

    fn changed(&mut self) {
        if let Some(waker) = self.observer.take() {
            waker.wake();
        }
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Makes bytes arrive.
    pub fn feed(&self, bytes: &[u8]) {
        self.change(|state| state.incoming.extend(bytes));
    }

    /// Makes a frame of the peer arrive, whose role is `role`.
    pub fn feed_frame(&self, role: Role, frame: &Frame) {
        self.feed(&frame.encode(role));
    }

    /// Ends the incoming stream.
    pub fn end(&self) {
        self.change(|state| state.incoming_end = Some(Ok(())));
    }

    /// Breaks the incoming stream.
    pub fn break_off(&self, kind: io::ErrorKind) {
        self.change(|state| state.incoming_end = Some(Err(kind.into())));
    }

    /// Breaks the outgoing stream, but not the incoming one.
    pub fn break_writing(&self, kind: io::ErrorKind) {
        self.change(|state| state.broken = Some(kind));
    }

    /// Sets the number of bytes that may be written from now on.
    pub fn set_room(&self, room: usize) {
        self.change(|state| state.room = room);
    }

    /// Returns the number of bytes that may still be written.
    pub fn room(&self) -> usize {
        self.state().room
    }

    /// Sets the largest number of bytes per call.
    pub fn set_chunk(&self, chunk: usize) {
        self.change(|state| state.chunk = chunk);
    }

    /// Makes every other call return `Pending`.
    pub fn set_hesitating(&self) {
        self.change(|state| state.hesitated = Some([false; 2]));
    }

    /// Lets one byte pass per call, and makes every other call return `Pending`.
    pub fn be_slow(&self) {
        self.set_chunk(1);
        self.set_hesitating();
    }

    /// Returns the number of bytes that have arrived and are unread.
    pub fn unread(&self) -> usize {
        self.state().incoming.len()
    }

    /// Returns whether the library has read all bytes, and waits for more.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.incoming.is_empty() && state.idle
    }

    /// Returns the number of written bytes that were not taken.
    pub fn written_len(&self) -> usize {
        self.state().outgoing.len()
    }

    /// Returns the numbers of successful reads and writes of the library.
    pub fn calls(&self) -> (usize, usize) {
        let state = self.state();
        (state.reads, state.writes)
    }

    /// Removes and returns the written bytes.
    pub fn take_written(&self) -> Vec<u8> {
        std::mem::take(&mut self.state().outgoing)
    }

    /// Returns the written bytes that were not taken.
    pub fn copy_written(&self) -> Vec<u8> {
        self.state().outgoing.clone()
    }

    /// Removes and returns the whole frames that `role` has written.
    pub fn take_frames(&self, role: Role) -> Vec<Frame> {
        take_frames(role, &mut self.state().outgoing)
    }

    pub fn is_shut_down(&self) -> bool {
        self.state().shut_down
    }

    pub fn is_dropped(&self) -> bool {
        self.state().dropped
    }

    /// Waits until `condition` holds.
    pub async fn until(&self, mut condition: impl FnMut(&Self) -> bool) {
        poll_fn(|cx| {
            self.state().observer = Some(cx.waker().clone());
            if condition(self) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Waits for the next whole frame that `role` writes.
    pub async fn next_frame(&self, role: Role) -> Frame {
        let mut frame = None;
        self.until(|wire| {
            let mut state = wire.state();
            let mut rest = state.outgoing.clone();
            let mut frames = take_frames(role, &mut rest);
            if frames.is_empty() {
                return false;
            }
            let first = frames.remove(0);
            let taken = state.outgoing.len() - rest.len();
            let later: usize = frames.iter().map(|frame| frame.encode(role).len()).sum();
            state.outgoing.drain(..taken - later);
            frame = Some(first);
            true
        })
        .await;
        frame.expect("a frame was found")
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        if state.hesitate(0, cx) {
            return Poll::Pending;
        }
        let count = buf.remaining().min(state.chunk).min(state.incoming.len());
        if count > 0 {
            let bytes: Vec<u8> = state.incoming.drain(..count).collect();
            buf.put_slice(&bytes);
            if state.incoming.is_empty() {
                // Tests that count memory count only the library's.
                state.incoming = VecDeque::new();
            }
            state.reads += 1;
            state.idle = false;
            state.changed();
            return Poll::Ready(Ok(()));
        }
        match &state.incoming_end {
            Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(error.kind().into())),
            None => {
                state.wait(cx);
                state.idle = true;
                state.changed();
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap();
        assert!(!state.shut_down, "nothing is written behind the end of the stream");
        if let Some(kind) = state.broken {
            return Poll::Ready(Err(kind.into()));
        }
        if state.hesitate(1, cx) {
            return Poll::Pending;
        }
        let count = buf.len().min(state.chunk).min(state.room);
        if count == 0 && !buf.is_empty() {
            state.wait(cx);
            return Poll::Pending;
        }
        state.outgoing.extend_from_slice(&buf[..count]);
        if state.room != usize::MAX {
            state.room -= count;
        }
        state.writes += 1;
        state.changed();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        state.shut_down = true;
        state.changed();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap();
        state.dropped = true;
        state.changed();
    }
}
