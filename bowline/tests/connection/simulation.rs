//! Random conversations over a simulated network, in which all promises of the library have to hold.
//!
//! A seed decides everything: `BOWLINE_SEED=<seed>` replays one conversation and prints its events, and
//! `BOWLINE_SEEDS=<count>` runs more.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::support::conversation::{Outcome, converse};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("the variable is a number"))
}

fn converse_all(seeds: Range<u64>) -> Outcome {
    let mut all = Outcome::default();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| converse(seed, false))) {
            Ok(outcome) => all.add(&outcome),
            Err(panic) => {
                eprintln!("seed {seed} fails; BOWLINE_SEED={seed} replays it");
                resume_unwind(panic);
            }
        }
    }
    all
}

#[test]
fn conversations_keep_all_promises() {
    if let Some(seed) = number("BOWLINE_SEED") {
        println!("{:#?}", converse(seed, true));
        return;
    }
    let all = converse_all(0..number("BOWLINE_SEEDS").unwrap_or(300));
    println!("{all:#?}");
    let counts = [
        all.messages,
        all.parts,
        all.orderly,
        all.normal_ends,
        all.closed_ends,
        all.disconnected_ends,
        all.timed_out_ends,
        all.full,
        all.dropped_sends,
        all.pings,
    ];
    assert!(!counts.contains(&0), "everything happens in some conversation: {all:?}");
}

#[test]
#[ignore = "it takes a while"]
fn ten_thousand_conversations_keep_all_promises() {
    println!("{:#?}", converse_all(0..number("BOWLINE_SEEDS").unwrap_or(10_000)));
}

#[test]
fn a_seed_decides_all() {
    let digests = |seeds: Range<u64>| seeds.map(|seed| converse(seed, false).digest).collect::<Vec<_>>();
    assert_eq!(digests(0..50), digests(0..50));
}
