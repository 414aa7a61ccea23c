//! The connections whose boxed streams a thread is polling.
//!
//! A boxed stream is polled under the locks of its connection. If the stream wakes its waker during that
//! poll, the wake-up runs under these locks too, where no foreign waker may be called. So the thread keeps a
//! record of such polls, and the connection's waker asks the record which case it is in.
//!
//! A stream may itself be a tunnel in another WebSocket, whose stream is then polled within the outer poll.
//! Therefore the record is a stack. The top is a cell of its own, so a thread that polls no stream finds
//! that out with one load.

use std::cell::{Cell, RefCell};
use std::task::Context;

thread_local! {
    /// The address of the innermost connection whose stream is being polled; 0 if there is none.
    static INNERMOST: Cell<usize> = const { Cell::new(0) };
    /// The addresses of the connections whose streams carry the innermost one.
    static OUTER: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A guard that marks a connection's stream as being polled by this thread.
pub(crate) struct Polling {
    outer: usize,
}

impl Polling {
    /// Marks the connection that owns the waker of `cx`.
    pub(crate) fn begin(cx: &Context<'_>) -> Self {
        // Access fails only while the thread ends.
        let outer = INNERMOST.try_with(|polled| polled.replace(cx.waker().data().addr())).unwrap_or_default();
        if outer != 0 {
            let _ = OUTER.try_with(|all| all.borrow_mut().push(outer));
        }
        Self { outer }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let _ = INNERMOST.try_with(|polled| polled.set(self.outer));
        if self.outer != 0 {
            let _ = OUTER.try_with(|all| all.borrow_mut().pop());
        }
    }
}

/// Returns `true` if this thread is polling the stream of the connection whose waker has its data at
/// `address`.
#[inline]
pub(crate) fn is_polled(address: usize) -> bool {
    let innermost = INNERMOST.try_with(Cell::get).unwrap_or_default();
    innermost != 0 && is_on_stack(innermost, address)
}

#[cold]
fn is_on_stack(innermost: usize, address: usize) -> bool {
    innermost == address || OUTER.try_with(|all| all.borrow().contains(&address)).unwrap_or_default()
}
