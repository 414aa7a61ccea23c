//! Masking keys and nonces, from the operating system's generator.

use std::cell::RefCell;

/// How many bytes are fetched at once: 256 masking keys.
const POOL_SIZE: usize = 1024;

struct Pool {
    bytes: [u8; POOL_SIZE],
    used: usize,
    /// The process that uses it.
    process: u32,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_SIZE], used: POOL_SIZE, process: 0 }) };
}

/// Throws away what is kept if the process was forked since: it has a copy of what the other one gives out.
///
/// It is called when a client's connection begins: one that was open before can't be used by both processes anyway. To ask
/// for the process is a system call; measured: before each write, it takes a quarter of what a message of 16 bytes costs.
pub(crate) fn renew_after_fork() {
    let process = std::process::id();
    POOL.with_borrow_mut(|pool| {
        if pool.process != process {
            *pool = Pool { bytes: [0; POOL_SIZE], used: POOL_SIZE, process };
        }
    });
}

/// Bytes that nobody can predict and that are given out once (RFC 6455 5.3, 10.3).
#[inline(never)]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    POOL.with_borrow_mut(|pool| {
        if pool.used + N > POOL_SIZE {
            getrandom::fill(&mut pool.bytes).expect("the operating system gives random bytes");
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
