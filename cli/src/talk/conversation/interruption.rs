//! The outside ends of a conversation: signals, and the time of `--timeout`.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::exit::Signals;

/// An end of the conversation that comes from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::talk) enum Interruption {
    /// A signal, by its number.
    Signal(u8),
    TimedOut,
}

/// The sources of interruptions.
pub(in crate::talk) struct Interruptions {
    signals: Signals,
    deadline: Option<Instant>,
    /// The time of the first interruption.
    first: Option<Instant>,
}

impl Interruptions {
    /// Takes over the signals of the process, and starts the clock.
    pub(in crate::talk) fn new(timeout: Option<Duration>) -> Self {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Self { signals: Signals::new(), deadline, first: None }
    }

    /// The time since the first interruption, or zero before it.
    pub(in crate::talk) fn since_first(&self) -> Duration {
        self.first.map_or(Duration::ZERO, |first| first.elapsed())
    }

    /// Waits for the next interruption. The time is up only once.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe: a dropped future loses no interruption.
    pub(in crate::talk) async fn next(&mut self) -> Interruption {
        let deadline = self.deadline;
        let time = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        let interruption = tokio::select! {
            signal = self.signals.next() => Interruption::Signal(signal),
            () = time => {
                self.deadline = None;
                Interruption::TimedOut
            }
        };
        self.first.get_or_insert_with(Instant::now);
        interruption
    }
}
