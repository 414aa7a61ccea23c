//! A stream in memory and its other end, built on loom.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bowline::Role;
use loom::sync::{Condvar, Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frames::{Frame, take_frames};

/// The library's end, which remembers only the last waker, of whichever direction.
pub struct Stream(Arc<Line>);

/// The peer's end.
pub struct Peer(Arc<Line>);

#[derive(Default)]
struct Line {
    state: Mutex<State>,
    written: Condvar,
}

#[derive(Default)]
struct State {
    input: VecDeque<u8>,
    ended: bool,
    /// The number of bytes that the stream accepts.
    room: usize,
    output: Vec<u8>,
    shut_down: bool,
    waker: Option<Waker>,
}

pub fn line(room: usize) -> (Stream, Peer) {
    let line = Arc::new(Line { state: Mutex::new(State { room, ..State::default() }), ..Line::default() });
    (Stream(Arc::clone(&line)), Peer(line))
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Peer {
    pub fn feed(&self, bytes: &[u8]) {
        self.change(|state| state.input.extend(bytes));
    }

    pub fn end(&self) {
        self.change(|state| state.ended = true);
    }

    pub fn make_room(&self, bytes: usize) {
        self.change(|state| state.room += bytes);
    }

    /// Returns the bytes from `role`.
    pub fn frames(&self, role: Role) -> Vec<Frame> {
        take_frames(role, &mut self.0.state().output.clone())
    }

    /// Waits until `found` returns true for the bytes from `role`, or until `role` has ended the stream.
    pub fn wait_until(&self, role: Role, found: impl Fn(&[Frame]) -> bool) -> Vec<Frame> {
        let mut state = self.0.state();
        loop {
            let frames = take_frames(role, &mut state.output.clone());
            if state.shut_down || found(&frames) {
                return frames;
            }
            state = self.0.written.wait(state).unwrap();
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.state();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        if state.input.is_empty() && !state.ended {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = state.input.len().min(buf.remaining());
        buf.put_slice(&state.input.drain(..count).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.state();
        let count = state.room.min(buf.len());
        if count == 0 {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.room -= count;
        state.output.extend_from_slice(&buf[..count]);
        drop(state);
        self.0.written.notify_all();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.state().shut_down = true;
        self.0.written.notify_all();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.state().shut_down = true;
        self.0.written.notify_all();
    }
}
