//! Masking keys and nonces from the operating system's random number generator.
//!
//! Each thread fetches 1 KiB at a time, because a system call for each masking key would cost more than a
//! small message.

use std::cell::RefCell;

/// The number of bytes that are fetched at once: 256 masking keys.
const POOL_SIZE: usize = 1024;

/// The random bytes that a thread has fetched and not all used.
struct Pool {
    bytes: [u8; POOL_SIZE],
    used: usize,
    /// The process that fetched the bytes.
    process: u32,
}

thread_local! {
    static POOL: RefCell<Pool> =
        const { RefCell::new(Pool { bytes: [0; POOL_SIZE], used: POOL_SIZE, process: 0 }) };
}

/// Discards the fetched bytes if the process has been forked since, because the other process has a copy of
/// them.
///
/// Clients call this function when a connection begins, which is enough: two processes can't share an open
/// connection. The process id takes a system call. Before each write, that call would cost a quarter of a
/// message of 16 bytes (measured).
pub(crate) fn renew_after_fork() {
    let process = std::process::id();
    POOL.with_borrow_mut(|pool| {
        if pool.process != process {
            *pool = Pool { bytes: [0; POOL_SIZE], used: POOL_SIZE, process };
        }
    });
}

/// Returns unpredictable bytes, and never the same ones twice (RFC 6455 5.3, 10.3).
#[inline(never)]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    POOL.with_borrow_mut(|pool| {
        if pool.used + N > POOL_SIZE {
            getrandom::fill(&mut pool.bytes).expect("the operating system provides random bytes");
            pool.used = 0;
        }
        let fresh = &mut pool.bytes[pool.used..pool.used + N];
        pool.used += N;
        let mut taken = [0; N];
        taken.copy_from_slice(fresh);
        fresh.fill(0);
        taken
    })
}
