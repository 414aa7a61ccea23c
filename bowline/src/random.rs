//! Masking keys and nonces, from the operating system's generator.

use std::cell::RefCell;

/// How many bytes are fetched at once: 256 masking keys.
const BATCH: usize = 1024;

struct Batch {
    bytes: [u8; BATCH],
    used: usize,
    /// The process that uses it.
    process: u32,
}

thread_local! {
    static RANDOM: RefCell<Batch> = const { RefCell::new(Batch { bytes: [0; BATCH], used: BATCH, process: 0 }) };
}

/// Throws away what is kept if the process was forked since: it has a copy of what the other one gives out.
///
/// It is called when a client's connection begins: one that was open before can't be used by both processes anyway. To ask
/// for the process is a system call; measured: before each write, it takes a quarter of what a message of 16 bytes costs.
pub(crate) fn renew_after_fork() {
    let process = std::process::id();
    RANDOM.with_borrow_mut(|batch| {
        if batch.process != process {
            *batch = Batch { bytes: [0; BATCH], used: BATCH, process };
        }
    });
}

/// Bytes that nobody can predict and that are given out once (RFC 6455 5.3, 10.3).
#[inline(never)]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    RANDOM.with_borrow_mut(|batch| {
        if batch.used + N > BATCH {
            getrandom::fill(&mut batch.bytes).expect("the operating system gives random bytes");
            batch.used = 0;
        }
        let fresh = &mut batch.bytes[batch.used..batch.used + N];
        batch.used += N;
        let mut taken = [0; N];
        taken.copy_from_slice(fresh);
        fresh.fill(0);
        taken
    })
}
