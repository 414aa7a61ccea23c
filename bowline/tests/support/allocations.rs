//! An allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the allocations of the current thread, since each test has a thread of its own. Use it as a file's
/// `#[global_allocator]`.
pub struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    pub static TAKEN: Cell<isize> = const { Cell::new(0) };
    pub static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    HELD.set(HELD.get() + bytes);
    TAKEN.set(TAKEN.get() + bytes.max(0));
    PEAK.set(PEAK.get().max(HELD.get()));
}

#[expect(unsafe_code, reason = "an allocator is unsafe by nature; this one hands everything on")]
#[expect(clippy::cast_possible_wrap, reason = "no allocation is larger than isize::MAX")]
// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        count(layout.size() as isize);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // A smaller number is no allocation.
        ALLOCATIONS.set(ALLOCATIONS.get() + usize::from(size > layout.size()));
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

pub fn held() -> isize {
    HELD.get()
}

/// Returns the largest number of bytes held at once since this call, beyond those held at the call.
pub fn peak_since_now() -> impl FnOnce() -> isize {
    let before = held();
    PEAK.set(before);
    move || PEAK.get() - before
}
