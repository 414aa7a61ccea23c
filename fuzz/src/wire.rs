//! A stream in memory that a script controls step by step.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Creates a stream for the library, and the script's end of it.
pub fn wire() -> (Stream, Wire) {
    let state = Arc::new(Mutex::new(State {
        incoming: VecDeque::new(),
        incoming_end: None,
        read: 0,
        outgoing: Vec::new(),
        room: usize::MAX,
        chunk: usize::MAX,
        hesitated: None,
        broken: false,
        wakers: [None, None],
        shut_down: false,
        dropped: false,
    }));
    (Stream(Arc::clone(&state)), Wire(state))
}

/// The library's end, which remembers only the last waker of each direction.
pub struct Stream(Arc<Mutex<State>>);

/// The script's end.
pub struct Wire(Arc<Mutex<State>>);

struct State {
    incoming: VecDeque<u8>,
    incoming_end: Option<io::Result<()>>,
    /// The number of bytes that the library has read.
    read: usize,
    outgoing: Vec<u8>,
    /// The number of bytes that may still be written.
    room: usize,
    /// The largest number of bytes per call.
    chunk: usize,
    /// For each direction, whether the last call returned `Pending`, if every other call does so.
    hesitated: Option<[bool; 2]>,
    /// Set if writing fails.
    broken: bool,
    wakers: [Option<Waker>; 2],
    shut_down: bool,
    dropped: bool,
}

impl State {
    fn hesitate(&mut self, direction: usize, cx: &Context<'_>) -> bool {
        let Some(hesitated) = &mut self.hesitated else { return false };
        hesitated[direction] = !hesitated[direction];
        if hesitated[direction] {
            cx.waker().wake_by_ref();
        }
        hesitated[direction]
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic is survived")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Makes bytes arrive.
    pub fn feed(&self, bytes: &[u8]) {
        self.change(|state| state.incoming.extend(bytes));
    }

    /// Ends the incoming stream.
    pub fn end(&self) {
        self.change(|state| state.incoming_end = Some(Ok(())));
    }

    /// Breaks the incoming stream.
    pub fn break_reading(&self) {
        self.change(|state| state.incoming_end = Some(Err(io::ErrorKind::ConnectionReset.into())));
    }

    /// Breaks the outgoing stream, but not the incoming one.
    pub fn break_writing(&self) {
        self.change(|state| state.broken = true);
    }

    /// Sets the number of bytes that may be written from now on.
    pub fn set_room(&self, room: usize) {
        self.change(|state| state.room = room);
    }

    /// Sets the largest number of bytes per call.
    pub fn set_chunk(&self, chunk: usize) {
        self.change(|state| state.chunk = chunk);
    }

    /// Sets whether every other call returns `Pending`.
    pub fn set_hesitating(&self, hesitates: bool) {
        self.change(|state| state.hesitated = hesitates.then_some([false; 2]));
    }

    /// Returns the number of bytes that the library has read.
    pub fn read(&self) -> usize {
        self.state().read
    }

    /// Returns the number of bytes that have arrived and are unread.
    pub fn unread(&self) -> usize {
        self.state().incoming.len()
    }

    /// Removes and returns the written bytes.
    pub fn take_written(&self) -> Vec<u8> {
        std::mem::take(&mut self.state().outgoing)
    }

    pub fn is_shut_down(&self) -> bool {
        self.state().shut_down
    }

    pub fn is_dropped(&self) -> bool {
        self.state().dropped
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().expect("no panic is survived");
        // A call hesitates only if it could proceed. Otherwise two directions that always wake their task
        // would keep each other awake, and the paused clock would never advance.
        let idle = state.incoming.is_empty() && state.incoming_end.is_none();
        if !idle && state.hesitate(0, cx) {
            return Poll::Pending;
        }
        let count = buf.remaining().min(state.chunk).min(state.incoming.len());
        if count > 0 {
            let bytes: Vec<u8> = state.incoming.drain(..count).collect();
            buf.put_slice(&bytes);
            state.read += count;
            return Poll::Ready(Ok(()));
        }
        match &state.incoming_end {
            Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(error.kind().into())),
            None => {
                state.wakers[0] = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().expect("no panic is survived");
        assert!(!state.shut_down, "nothing is written behind the end of the stream");
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.room > 0 && state.hesitate(1, cx) {
            return Poll::Pending;
        }
        let count = buf.len().min(state.chunk).min(state.room);
        if count == 0 && !buf.is_empty() {
            state.wakers[1] = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.outgoing.extend_from_slice(&buf[..count]);
        if state.room != usize::MAX {
            state.room -= count;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().expect("no panic is survived").shut_down = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.lock().expect("no panic is survived").dropped = true;
    }
}
