//! Masking and UTF-8 validation alone, beside a copy and other validators. Also the minimum cost of a message
//! that owns its payload, and that any task may send or receive.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bowline_proto::{Utf8Validator, mask};
use bytes::Bytes;
use tokio::task::coop::poll_proceed;

use crate::frames::{Kind, payload};
use crate::statistics::{interquartile_range, median};

#[derive(clap::Args, Clone, Debug)]
pub struct Micro {
    /// Samples of each operation
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// The duration of a sample, in milliseconds
    #[arg(long, default_value_t = 5)]
    milliseconds: u64,
}

const SIZES: [usize; 6] = [16, 125, 1024, 16 * 1024, 64 * 1024, 1024 * 1024];

/// An operation on bytes.
type Work<'a> = (&'static str, Box<dyn FnMut() + 'a>);

pub fn run(options: &Micro) {
    println!("Gigabytes a second, medians of {} rounds; beside it the ratio to the first.", options.rounds);
    for size in SIZES {
        let bytes = payload(Kind::Binary, size, 0);
        let (mut copied, mut masked) = (bytes.clone(), bytes.clone());
        let copy: Work = ("copy", Box::new(|| black_box(&mut copied[..]).copy_from_slice(black_box(&bytes))));
        let masking: Work =
            ("bowline: mask", Box::new(|| mask(black_box(&mut masked), black_box([1, 2, 3, 4]), 0)));
        compare(options, &format!("masking {size} B"), size, vec![copy, masking]);
    }
    let ascii = |size| vec![b'a'; size];
    let multi_byte = |size| payload(Kind::Text, size, 0);
    for (name, text) in [("ASCII", &ascii as &dyn Fn(usize) -> Vec<u8>), ("multi-byte", &multi_byte)] {
        for size in SIZES {
            let text = text(size);
            let simdutf8: Work =
                ("simdutf8", Box::new(|| assert!(simdutf8::basic::from_utf8(black_box(&text)).is_ok())));
            let std: Work = ("std", Box::new(|| assert!(std::str::from_utf8(black_box(&text)).is_ok())));
            let ours: Work = (
                "bowline: validate",
                Box::new(|| {
                    let mut validator = Utf8Validator::default();
                    validator.feed(black_box(&text)).expect("it is valid");
                    assert!(validator.is_complete());
                }),
            );
            compare(options, &format!("{name} text {size} B"), size, vec![simdutf8, std, ours]);
        }
    }
    parts_of_a_message(options);
}

/// The work that every message of 16 bytes needs, with any library: its memory, two locks, and two checks of
/// its task's budget. The floor does none of this work.
fn parts_of_a_message(options: &Micro) {
    let (receive, transmit) = (Mutex::new(0_u64), Mutex::new(0_u64));
    let bytes = [7; 16];
    let mut parts: [Work; 3] = [
        (
            "its payload, allocated and freed",
            Box::new(|| drop(black_box(Bytes::from(black_box(&bytes).to_vec())))),
        ),
        (
            "two locks, taken and given back",
            Box::new(|| {
                *black_box(&receive).lock().expect("nobody panics") += 1;
                *black_box(&transmit).lock().expect("nobody panics") += 1;
            }),
        ),
        (
            "two looks at the task's budget",
            Box::new(|| {
                for _ in 0..2 {
                    let mut look = pin!(poll_fn(|cx| poll_proceed(cx).map(|budget| budget.made_progress())));
                    let poll = look.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    assert!(matches!(black_box(poll), Poll::Ready(())));
                }
            }),
        ),
    ];
    println!("\nparts of a message of 16 bytes");
    for (name, work) in &mut parts {
        let samples: Vec<f64> = (0..options.rounds)
            .map(|_| 1.0 / speed(1, Duration::from_millis(options.milliseconds), work))
            .collect();
        println!("  {name:<33} {:>6.1} ns ±{:.1}", median(&samples), interquartile_range(&samples));
    }
}

/// The operations take turns, so that a disturbance affects all of them.
fn compare(options: &Micro, title: &str, size: usize, mut works: Vec<Work>) {
    let mut speeds = vec![Vec::new(); works.len()];
    for _ in 0..options.rounds {
        for ((_, work), speeds) in works.iter_mut().zip(&mut speeds) {
            speeds.push(speed(size, Duration::from_millis(options.milliseconds), work));
        }
    }
    println!("\n{title}");
    for ((name, _), own) in works.iter().zip(&speeds) {
        let ratios: Vec<f64> = own.iter().zip(&speeds[0]).map(|(own, first)| own / first).collect();
        println!(
            "  {name:<18} {:>7.2} GB/s  {:.2} ±{:.2}",
            median(own),
            median(&ratios),
            interquartile_range(&ratios)
        );
    }
}

/// Returns bytes per nanosecond.
fn speed(size: usize, duration: Duration, work: &mut dyn FnMut()) -> f64 {
    let at_once = (64 * 1024 / size).max(1);
    let began = Instant::now();
    let mut bytes = 0;
    loop {
        for _ in 0..at_once {
            work();
        }
        bytes += at_once * size;
        let elapsed = began.elapsed();
        if elapsed >= duration {
            return bytes as f64 / elapsed.as_nanos() as f64;
        }
    }
}
