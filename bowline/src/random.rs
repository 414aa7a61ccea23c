//! Masking keys and nonces, from the operating system's generator.

use std::cell::RefCell;

/// How many bytes are fetched at once: 256 masking keys.
const BATCH: usize = 1024;

struct Batch {
    bytes: [u8; BATCH],
    used: usize,
}

thread_local! {
    static RANDOM: RefCell<Batch> = const { RefCell::new(Batch { bytes: [0; BATCH], used: BATCH }) };
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
