//! Waiting for an exact time.

use std::io;
use std::time::Instant;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use portable as system;

/// A timer that is exact to some microseconds.
///
/// tokio's own timer counts in whole milliseconds. A reply on a local network takes less than one, so each
/// latency would mostly consist of waiting for the timer. On Linux, a file descriptor of the kernel's exact
/// timer takes its place.
pub(crate) struct ExactTimer(system::Timer);

impl ExactTimer {
    pub(crate) fn new() -> io::Result<Self> {
        system::Timer::new().map(Self)
    }

    /// Waits until `time`.
    pub(crate) async fn sleep_until(&mut self, time: Instant) -> io::Result<()> {
        self.0.sleep_until(time).await
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use rustix::io::Errno;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        #[allow(deprecated, reason = "the successor is unsafe; with an `OwnedFd`, this one is sound")]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
        }

        pub(super) async fn sleep_until(&mut self, time: Instant) -> io::Result<()> {
            let rest = time.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            let once = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: rest.try_into().map_err(|_| Errno::INVAL)?,
            };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            loop {
                // The timer is not read: setting it again resets it, and each expiry is an event of its own.
                // An event may be left of an earlier time, so the clock decides.
                self.0.readable().await?.clear_ready();
                if Instant::now() >= time {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::io;
    use std::time::Instant;

    pub(super) struct Timer;

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, reason = "the signature is that of Linux")]
        pub(super) async fn sleep_until(&mut self, time: Instant) -> io::Result<()> {
            tokio::time::sleep_until(time.into()).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_time_is_awaited_more_than_once() {
        let mut timer = ExactTimer::new().unwrap();
        for _ in 0..3 {
            let time = Instant::now() + Duration::from_micros(300);
            timer.sleep_until(time).await.unwrap();
            assert!(Instant::now() >= time);
        }
        timer.sleep_until(Instant::now()).await.unwrap();
    }
}
