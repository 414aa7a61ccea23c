//! Two ends of a stream in memory that can be cut, and fail on command.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The number of bytes that a direction holds.
const CAPACITY: usize = 64 * 1024;

/// Returns connected ends; the first one's bytes are direction 0.
pub fn cable() -> (End, End, Cable) {
    let state = Arc::new(Mutex::new(State::default()));
    let end = |side| End {
        side,
        state: Arc::clone(&state),
        fault: None,
        calls: 0,
        chunk: usize::MAX,
        vectored: false,
        hesitated: None,
    };
    (end(0), end(1), Cable(state))
}

/// The test's access to what connects the ends.
pub struct Cable(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    directions: [Direction; 2],
    /// The number of bytes in this direction after which the connection is reset.
    reset_at: Option<(usize, usize)>,
    reset: bool,
    faulted: bool,
    wakers: Vec<Waker>,
}

#[derive(Default)]
struct Direction {
    bytes: VecDeque<u8>,
    ended: bool,
    passed: usize,
}

impl State {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Cable {
    /// Resets the connection after this many bytes have been written in a direction. Unread bytes are lost.
    pub fn reset_at(&self, direction: usize, bytes: usize) {
        let mut state = self.0.lock().unwrap();
        state.reset_at = Some((direction, bytes));
        state.reset = bytes == 0;
    }

    /// Returns whether a [`Fault`] has happened.
    pub fn has_faulted(&self) -> bool {
        self.0.lock().unwrap().faulted
    }

    /// Returns the number of bytes written in each direction.
    pub fn passed(&self) -> [usize; 2] {
        let state = self.0.lock().unwrap();
        [state.directions[0].passed, state.directions[1].passed]
    }
}

/// One end.
pub struct End {
    side: usize,
    state: Arc<Mutex<State>>,
    fault: Option<Fault>,
    calls: usize,
    /// The largest number of bytes per call.
    chunk: usize,
    /// Set if it takes vectored writes, of no more than `chunk` bytes either.
    vectored: bool,
    /// Set if each call first returns `Pending` and wakes its caller: the last result.
    hesitated: Option<[bool; 4]>,
}

/// The call that fails, and all calls after it.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub call: Call,
    /// The number of calls of this kind that succeed.
    pub after: usize,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read,
    Write,
    Flush,
    Shutdown,
}

/// The failure of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    WithError,
    /// Nothing was read, or written.
    WithZero,
}

impl End {
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    pub fn with_chunk(mut self, chunk: usize) -> Self {
        self.chunk = chunk;
        self
    }

    pub fn vectored(mut self) -> Self {
        self.vectored = true;
        self
    }

    pub fn hesitating(mut self) -> Self {
        self.hesitated = Some([false; 4]);
        self
    }

    fn hesitates(&mut self, call: Call, cx: &mut Context<'_>) -> bool {
        let Some(hesitated) = &mut self.hesitated else { return false };
        let hesitated = &mut hesitated[call as usize];
        *hesitated = !*hesitated;
        if *hesitated {
            cx.waker().wake_by_ref();
        }
        *hesitated
    }

    /// Returns whether this call fails.
    fn fails(&mut self, call: Call) -> Option<How> {
        let fault = self.fault.filter(|fault| fault.call == call)?;
        self.calls += 1;
        let fails = self.calls > fault.after;
        self.state.lock().unwrap().faulted |= fails;
        fails.then_some(fault.how)
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the test broke the stream")
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.hesitates(Call::Read, cx) {
            return Poll::Pending;
        }
        match self.fails(Call::Read) {
            Some(How::WithError) => return Poll::Ready(Err(broken())),
            Some(How::WithZero) => return Poll::Ready(Ok(())),
            None => {}
        }
        let chunk = self.chunk;
        let mut state = self.state.lock().unwrap();
        if state.reset {
            return Poll::Ready(Err(reset()));
        }
        let direction = &mut state.directions[1 - self.side];
        let count = buf.remaining().min(direction.bytes.len()).min(chunk);
        if count == 0 && !direction.ended {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        let bytes: Vec<u8> = direction.bytes.drain(..count).collect();
        buf.put_slice(&bytes);
        state.wake();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.hesitates(Call::Write, cx) {
            return Poll::Pending;
        }
        match self.fails(Call::Write) {
            Some(How::WithError) => return Poll::Ready(Err(broken())),
            Some(How::WithZero) => return Poll::Ready(Ok(0)),
            None => {}
        }
        let (side, chunk) = (self.side, self.chunk);
        let mut state = self.state.lock().unwrap();
        if state.reset {
            return Poll::Ready(Err(reset()));
        }
        if state.directions[1 - side].ended && state.directions[side].ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = CAPACITY - state.directions[side].bytes.len();
        let until_reset = match state.reset_at {
            Some((direction, at)) if direction == side => at - state.directions[side].passed,
            _ => usize::MAX,
        };
        let count = buf.len().min(room).min(until_reset).min(chunk);
        if count == 0 {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        let direction = &mut state.directions[side];
        direction.bytes.extend(&buf[..count]);
        direction.passed += count;
        if count == until_reset {
            state.reset = true;
        }
        state.wake();
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let chunk = self.chunk;
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(chunk).collect();
        self.poll_write(cx, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hesitates(Call::Flush, cx) {
            return Poll::Pending;
        }
        match self.fails(Call::Flush) {
            Some(_) => Poll::Ready(Err(broken())),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hesitates(Call::Shutdown, cx) {
            return Poll::Pending;
        }
        if self.fails(Call::Shutdown).is_some() {
            return Poll::Ready(Err(broken()));
        }
        let side = self.side;
        let mut state = self.state.lock().unwrap();
        state.directions[side].ended = true;
        state.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let side = self.side;
        let mut state = self.state.lock().unwrap();
        for direction in &mut state.directions {
            direction.ended = true;
        }
        // Bytes that the peer still writes are lost.
        state.directions[1 - side].bytes.clear();
        state.wake();
    }
}
