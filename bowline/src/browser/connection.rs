//! The state that the handles of a connection share with its socket.
//!
//! ```text
//! Connecting --open--> Open --close()--> Closing --reported by the browser, or close_timeout--> Ended
//!     |                  |
//!     |                  '--closed by the peer, lost, a limit, the drop of the WebSocket--> Ended
//!     '--an error, handshake_timeout, the drop of the future--> Ended
//! ```
//!
//! Nothing here is an object of JavaScript, so handles and futures are `Send + Sync`, and may move to another
//! thread. The objects lie in `socket`, which finds its connection by reference, and is found by number.
//!
//! No foreign code runs under the lock: changes return the wakers to call, and [`Connection::update`] calls
//! them afterwards.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll, Waker};

use bowline_proto::{CloseCode, CloseFrame};

use super::inbox::{Arrival, Inbox};
use super::turns::{Ticket, Turns, WaiterKind};
use crate::error::{Error, ErrorKind};
use crate::events::Initiator;
use crate::limits::Limits;
use crate::message::Message;

/// The number of connections so far, in all threads.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// The state of a connection, shared by its handles.
pub(crate) struct Connection {
    /// The number by which `socket` finds the object of JavaScript. No other connection ever has it.
    pub(super) number: u64,
    pub(super) limits: Limits,
    state: Mutex<State>,
}

pub(super) struct State {
    stage: SocketStage,
    /// Set when the connection is open, if there is one.
    subprotocol: Option<Arc<String>>,
    inbox: Inbox,
    /// The task that receives.
    reader: Option<Waker>,
    /// The senders that wait for room in the browser's buffer.
    pub(super) senders: Turns,
    /// The tasks that wait until all bytes accepted before have left the browser's buffer.
    pub(super) flushers: Turns,
    /// The tasks that wait for another stage.
    pub(super) watchers: Turns,
    /// The bytes that the browser was handed so far.
    accepted: u64,
}

/// The stage of a connection: see the diagram above.
enum SocketStage {
    Connecting,
    Open,
    Closing,
    Ended(SocketEnd),
}

/// The end of a connection.
struct SocketEnd {
    /// The side that closed first.
    first: Initiator,
    /// The peer's Close frame, or the reason why there is none.
    result: Result<CloseFrame, Error>,
    /// The number of accepted bytes that had left the browser's buffer.
    written: u64,
}

impl Connection {
    pub(super) fn new(limits: Limits) -> Self {
        let state = State {
            stage: SocketStage::Connecting,
            subprotocol: None,
            inbox: Inbox::default(),
            reader: None,
            senders: Turns::default(),
            flushers: Turns::default(),
            watchers: Turns::default(),
            accepted: 0,
        };
        Self { number: CONNECTIONS.fetch_add(1, Ordering::Relaxed), limits, state: Mutex::new(state) }
    }

    /// Locks the state. The main thread of a page must not block, so nobody blocks.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        loop {
            match self.state.try_lock() {
                Ok(state) => return state,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => spin_loop(),
            }
        }
    }

    /// Changes the state, and calls the wakers that the change has added, once the lock is released.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let result = change(&mut state, &mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// The browser has opened the connection. An empty subprotocol stands for none.
    pub(super) fn open(&self, subprotocol: String) {
        self.update(|state, wakers| {
            if matches!(state.stage, SocketStage::Connecting) {
                state.stage = SocketStage::Open;
                state.subprotocol = (!subprotocol.is_empty()).then(|| Arc::new(subprotocol));
            }
            state.watchers.wake_all(wakers);
        });
    }

    /// A message of at least `size` bytes has arrived. Returns whether the message is wanted, or the error
    /// that ends the connection if the message exceeds a limit.
    pub(super) fn admit(&self, size: usize, arrival: Arrival) -> Result<bool, Error> {
        let state = self.lock();
        let is_open = matches!(state.stage, SocketStage::Open);
        if is_open {
            state.inbox.check(size, &self.limits, arrival)?;
        }
        Ok(is_open)
    }

    /// A message that was admitted can be received. Returns whether there is room for the next.
    pub(super) fn receive(&self, message: Message) -> bool {
        self.update(|state, wakers| {
            wakers.extend(state.reader.take());
            state.inbox.push(message, &self.limits)
        })
    }

    /// Returns whether there is room again for a message whose arrival was put off.
    pub(super) fn resume(&self) -> bool {
        self.lock().inbox.resume(&self.limits)
    }

    /// Our side starts the closing handshake. Returns whether this is what ends the connection.
    pub(super) fn start_close(&self) -> bool {
        self.update(|state, wakers| {
            let is_open = matches!(state.stage, SocketStage::Open);
            if is_open {
                state.stage = SocketStage::Closing;
                state.wake_all(wakers);
            }
            is_open
        })
    }

    /// The connection ends, unless it has ended. `buffered` is what the browser has not written.
    pub(super) fn end(&self, result: Result<CloseFrame, Error>, buffered: u32) {
        self.update(|state, wakers| {
            let first = match state.stage {
                SocketStage::Ended(_) => return,
                SocketStage::Closing => Initiator::Us,
                SocketStage::Open | SocketStage::Connecting => Initiator::Peer,
            };
            let written = state.accepted.saturating_sub(buffered.into());
            state.stage = SocketStage::Ended(SocketEnd { first, result, written });
            state.wake_all(wakers);
        });
    }

    /// The application has no use for the messages that are left.
    pub(super) fn discard(&self) {
        // Dropped once the lock is released.
        let _discarded = std::mem::take(&mut self.lock().inbox);
    }

    /// Waits for a message or the end.
    pub(super) fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        let mut state = self.lock();
        if let Some(message) = state.inbox.pop() {
            return Poll::Ready(Ok(Some(message)));
        }
        if let SocketStage::Ended(end) = &state.stage {
            return Poll::Ready(end.outcome().map(|()| None));
        }
        let replaced = state.reader.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Waits until `check` returns a result. The state is looked at again after each change of the stage.
    pub(super) fn poll_watch<T>(
        &self,
        cx: &mut Context<'_>,
        ticket: &mut Ticket,
        check: impl FnOnce(&State) -> Option<T>,
    ) -> Poll<T> {
        let mut state = self.lock();
        let Some(result) = check(&state) else {
            let replaced = state.watchers.wait(ticket, WaiterKind::Future, cx.waker());
            drop(state);
            drop(replaced);
            return Poll::Pending;
        };
        Poll::Ready(result)
    }

    pub(super) fn subprotocol(&self) -> Option<Arc<String>> {
        self.lock().subprotocol.clone()
    }

    pub(super) fn close_frame(&self) -> Option<CloseFrame> {
        match &self.lock().stage {
            SocketStage::Ended(end) => end.result.clone().ok(),
            _ => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.lock().stage, SocketStage::Ended(_))
    }
}

impl State {
    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.stage, SocketStage::Connecting)
    }

    /// Returns whether nothing more can be sent.
    pub(super) fn is_closed(&self) -> bool {
        !matches!(self.stage, SocketStage::Open)
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.stage, SocketStage::Closing)
    }

    /// Returns whether anyone waits until the browser's buffer empties.
    pub(super) fn waits_for_buffer(&self) -> bool {
        !self.senders.is_empty() || !self.flushers.is_empty()
    }

    /// Returns the error of senders, once nothing more can be sent.
    pub(super) fn closed(&self) -> Option<Error> {
        match &self.stage {
            SocketStage::Connecting | SocketStage::Open => None,
            SocketStage::Closing => Some(closed_by_us()),
            SocketStage::Ended(end) => Some(match (&end.first, &end.result) {
                (Initiator::Us, _) => closed_by_us(),
                (Initiator::Peer, Ok(frame)) => closed_by_peer(frame),
                (Initiator::Peer, Err(error)) => error.clone(),
            }),
        }
    }

    /// Returns the result of the opening handshake, once it is done.
    pub(super) fn opening_result(&self) -> Option<Result<(), Error>> {
        match &self.stage {
            SocketStage::Connecting => None,
            SocketStage::Ended(SocketEnd { result: Err(error), .. }) => Some(Err(error.clone())),
            _ => Some(Ok(())),
        }
    }

    /// Returns the result of the closing handshake, once the connection has ended.
    pub(super) fn closing_result(&self) -> Option<Result<CloseFrame, Error>> {
        match &self.stage {
            SocketStage::Ended(end) => Some(end.result.clone()),
            _ => None,
        }
    }

    /// Returns the number of bytes that the browser was handed.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Notes that the browser was handed a message.
    pub(super) fn accept(&mut self, size: usize) {
        self.accepted += size as u64;
    }

    /// Returns whether the first `accepted` bytes have left the browser's buffer, of which `buffered` are in
    /// it, or the error that ended the connection before.
    pub(super) fn flushed(&self, accepted: u64, buffered: u32) -> Option<Result<(), Error>> {
        match &self.stage {
            SocketStage::Ended(end) if accepted <= end.written => Some(Ok(())),
            SocketStage::Ended(end) => {
                Some(Err(end.result.as_ref().map_or_else(Error::clone, closed_by_peer)))
            }
            _ => (self.accepted.saturating_sub(buffered.into()) >= accepted).then_some(Ok(())),
        }
    }

    fn wake_all(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.reader.take());
        self.senders.wake_all(wakers);
        self.flushers.wake_all(wakers);
        self.watchers.wake_all(wakers);
    }
}

impl SocketEnd {
    /// Returns the outcome of receiving. The first Close frame decides.
    fn outcome(&self) -> Result<(), Error> {
        match (&self.first, &self.result) {
            (Initiator::Us, _) => Ok(()),
            (Initiator::Peer, Ok(frame)) if is_normal(frame) => Ok(()),
            (Initiator::Peer, Ok(frame)) => Err(closed_by_peer(frame)),
            (Initiator::Peer, Err(error)) => Err(error.clone()),
        }
    }
}

fn is_normal(frame: &CloseFrame) -> bool {
    matches!(frame.code(), CloseCode::NORMAL | CloseCode::GOING_AWAY | CloseCode::NO_STATUS)
}

fn closed_by_us() -> Error {
    Error::new(ErrorKind::Closed, "the connection is closed: close() was called")
}

fn closed_by_peer(frame: &CloseFrame) -> Error {
    let text =
        ["the peer closed the connection with ", &*frame.to_string()].iter().copied().collect::<String>();
    Error::with_close_frame(text, frame.clone())
}
