//! The line protocol of all loads. A load writes "ready". Each of the commands "for MILLISECONDS" and "rounds
//! COUNT" then makes a run, and the answer is "MESSAGES NANOSECONDS P50 P99".

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;

use crate::control::{listen, say};

/// The length of a run.
#[derive(Clone, Copy, Debug)]
pub enum Span {
    Time(Duration),
    /// A number of rounds on each connection.
    Rounds(usize),
}

/// Makes a run for each command, until the input ends.
pub fn obey(mut run: impl FnMut(Span, &mut Histogram<u64>) -> Result<usize>) -> Result<()> {
    let mut latencies = Histogram::new(3)?;
    say("ready");
    while let Some(line) = listen() {
        let span = match line.split_once(' ').context("a command has two words")? {
            ("for", milliseconds) => Span::Time(Duration::from_millis(milliseconds.parse()?)),
            ("rounds", count) => Span::Rounds(count.parse()?),
            other => bail!("an unknown command: {other:?}"),
        };
        latencies.reset();
        let began = Instant::now();
        let messages = run(span, &mut latencies)?;
        let elapsed = began.elapsed().as_nanos();
        let (p50, p99) = (latencies.value_at_quantile(0.5), latencies.value_at_quantile(0.99));
        say(format_args!("{messages} {elapsed} {p50} {p99}"));
    }
    Ok(())
}
