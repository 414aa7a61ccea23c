//! Memory of a thread for what is on its way into a write buffer.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

/// The most capacity that a thread keeps in each buffer.
const CAPACITY: usize = 256 * 1024;

/// How many a thread keeps: what is encoded in one may be compressed in another.
const SPARES: usize = 2;

thread_local! {
    static SPARE: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer, given back to the thread when it is dropped.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) fn take() -> Self {
        let mut buffer = Vec::new();
        change_spares(|spares| buffer = spares.pop().unwrap_or_default());
        Self(buffer)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.0.clear();
        let buffer = std::mem::take(&mut self.0);
        if (1..=CAPACITY).contains(&buffer.capacity()) {
            change_spares(|spares| {
                if spares.len() < SPARES {
                    spares.push(buffer);
                }
            });
        }
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

fn change_spares(change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    // It fails only while the thread ends.
    let _ = SPARE.try_with(|spare| {
        let mut spares = spare.take();
        change(&mut spares);
        spare.set(spares);
    });
}
