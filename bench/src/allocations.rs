//! A global allocator that counts allocations on request.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

static COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
/// The number of bytes held.
static HELD: AtomicI64 = AtomicI64::new(0);
/// The number of live allocations of each size below 32 KiB.
static LIVE: [AtomicI64; 32 * 1024] = [const { AtomicI64::new(0) }; 32 * 1024];

/// The system's allocator, with counters.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Starts to count. Counting makes each allocation slightly slower, so runs that count measure nothing else.
pub fn start() {
    COUNTING.store(true, Ordering::Relaxed);
}

pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Returns how many bytes are held of those allocated since [`start`].
pub fn held() -> i64 {
    HELD.load(Ordering::Relaxed)
}

/// Returns the sizes in bytes of the allocations that each of `connections` connections holds, the largest
/// first.
pub fn held_by_each(connections: i64) -> Vec<usize> {
    let mut sizes = Vec::new();
    for (size, live) in LIVE.iter().enumerate().rev() {
        // The other holders of an allocation of this size are few, so that rounding removes them.
        let each = (live.load(Ordering::Relaxed) + connections / 10) / connections;
        sizes.extend((0..each).map(|_| size));
    }
    sizes
}

fn note(size: usize) {
    if COUNTING.load(Ordering::Relaxed) {
        COUNT.fetch_add(1, Ordering::Relaxed);
        note_live(size, 1);
    }
}

fn note_live(size: usize, change: i64) {
    if COUNTING.load(Ordering::Relaxed) {
        HELD.fetch_add(change * size as i64, Ordering::Relaxed);
        if let Some(live) = LIVE.get(size) {
            live.fetch_add(change, Ordering::Relaxed);
        }
    }
}

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        note_live(layout.size(), -1);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note_live(layout.size(), -1);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
